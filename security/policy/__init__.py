"""Which requests may start, and how far they may go: model lists, and quotas reserved in blocks.

Reading order: `bucket` (exact refill), `quotas` (the book of reservations), `definitions` (what the registry says of clients),
`decisions` (both together: the answer to a gateway). Pure but for `definitions`, which reads the registry's file.

What always holds: one owner, in memory; never negative, never above a limit, and whatever was reserved is given back when its
request is settled or its gateway is gone.
"""
