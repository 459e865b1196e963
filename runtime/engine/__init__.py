"""The loop that joins scheduler and runner.

`loop` is all of it: `Engine.submit`, `cancel`, and `step`, which the process calls as long as `has_work`; `stats` is what it
tells operators. It imports `runtime.scheduling`, `runtime.kv` and the policy of `runtime.speculative`, and of the runner only the
protocol in `runtime.batch`.
What always holds: one thread; steps are collected in the order of their launch; whatever the runner raises ends the engine.
"""
