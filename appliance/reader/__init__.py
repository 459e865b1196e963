"""The reader: searches, records and tiles out of the log's files, which it cannot write.

Reading order: `archive` (the log's files and the index, in one thread), `service` (who may read what, and that it is recorded).
It holds no key and has no network: gateways ask it for auditors whose tokens they have checked.
"""
