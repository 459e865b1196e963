"""Records: a tamper-evident log that an auditor can verify with this package alone.

Reading order:
- the formats: `merkle`, `canonical_text`, `note`, `checkpoint`, `tiles`, `proof`;
- what is logged: `entry` (the form), `event_form`, `events` and `closing` (the builders), `permissions` (who may append what),
  `summary`, `keyed_hash`, `ticket`;
- how it is kept: `storage`, `wal`, `segments`, `frontier`, `publish`, `recovery`, `append` (the writer), `reserve`, `signing_key`;
- how it is read and verified: `reader`, `derivation`, `fsck`, `receipt`, `index` (search);
- what may be read of requests, by whom, how long: `sealing`, `shares`, `governance`;
- how it changes hands: `rotation`; what is looked up in it: `lookup`;
- how it leaves: `range_proof`, `formats`, `parquet`, `export`, `syslog`;
- who else vouches for it: `cosignature`, `witness`, `courier`; and `changes` (events of administration), `settings`, `errors`.

Imports the standard library, cryptography and msgspec; never `runtime`, `security` or `appliance`.

What always holds: an index that was given out names the same record for ever; whatever a signed checkpoint covers is in the
folder; every parser accepts one form only, and nothing but `errors.AuditFault` leaves it.
"""
