"""The engine's process around `runtime`: tickets are checked here, tokens go to the workers, counts to the auditor.

Reading order: `model` (what is loaded), `rank_facts` (on what) and `vocabulary` (as grammars need it), `tickets` (who may infer),
`holding` (what waits for one), `generation` (what the engine is asked for), `workers` and `service` (whose tokens are whose),
`outgoing` (one step as messages), `neighbours` (what they need of others). `processes.engine` is the loop around them. Trust
boundary: a gateway may be captured; without a ticket from the auditor it gets no token, and the counts that the auditor records
beside its own are told by the engine.
"""
