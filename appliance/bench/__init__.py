"""`casemate bench`: measures a server as its clients see it.

In reading order: `serving` (the command), `workloads` (what is asked, and when), `target` (where, and as whom),
`connection` (one keep-alive connection, its answer as it streams), `load` (the loop of one process), `load_process`
(that process), `fleet` (several of them at once), `figures` (percentiles of what they saw), `page` and `plots` (the
same as HTML).

For the gateway alone: `paced_engine` (answers at a set rate in the engine's place), `gateway` (the appliance around
it), `direct` (nothing around it, to compare), `children` (what processes cost). For drafts: `speculation`.

What always holds: the load is fixed before it starts, and made by processes of their own, whose share of the CPU is told.
"""
