"""Says what of the facts counts for which control, and never more than the evidence shows.

Reading order: `catalogue` (what is claimed, by control) and `loading` (from `controls/*.toml`), `facts` (what is asked
of an installation), `results` (what the tests showed), `statements` (what the customer says), `judgement` (the three
together), `scoring` (SPRS), `frameworks` (which controls make one); of the log `period`, `activity`, `summary`, `extracts`,
`retention`, `witnessing`; then `installation` (what is told of it), `pack`, `readme`, `manifest`, `verification` and
`again` (the evidence pack), `documents`, `oscal` and `report` (what is in it).

May import `audit` and `security`, and is given what only `appliance` knows: configuration, definitions, keys. What always holds:
without evidence nothing is "met"; two packs made of the same facts for the same time are equal to the byte.
"""
