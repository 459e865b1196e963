"""Which requests may start, and how far they may go: model lists, and quotas reserved in blocks.

Reading order: `limits` (what may be limited), `bucket` (exact refill), `account` (one subject's use), `allowances` (what is
left of it), `denials` (why it may not), `quotas` (the book of reservations), `definitions` (all that the registry says, as one
value), `decisions` (both together: the answer to a gateway), `replay` (what may be used once). Pure.

What always holds: one owner, in memory; never negative, never above a limit, and whatever was reserved is given back when its
request is settled or its gateway is gone.
"""
