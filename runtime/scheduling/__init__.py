"""Who computes what in the next step, and what becomes of the tokens.

In reading order: `requests` (requests, their choices, and the sequences that compute them), `limits` (what is refused
at the door), `table` and `sampling_table` (the running sequences as arrays), `fairness` (whose turn it is), `waiting`
(the queue), `estimate` (how long outputs will be), `seen` (counts of tokens, for penalties), `backlog` (what the draft
head is owed), `running` (sequences gaining and losing rows and pages), `mixing` (how many prompt tokens go beside
decodes), `admission` (who starts next), `planning` (decode, prefill and retraction of one step), `chains` (rows with
drafts to verify), `batching` (the plan as a `StepBatch`), `delivery` (tokens on their way out), `reading` (a step's
tokens, parted by what they need), `open_requests` (what a request is told, and how its answers end), `scheduler` (all of
it together).

It imports `runtime.kv`, numpy, and no torch: a `StepBatch` goes out, a `StepResult` comes in. What always holds: one
thread owns all state; only sequences that run have pages; a text depends neither on what else runs, nor on chunks, cache
hits, retraction or overlap.
"""
