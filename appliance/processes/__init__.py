"""The entry of each process: `python -m appliance.processes ROLE --control-fd N`, started by the supervisor only.

`member` (asyncio) and `polling` (one thread that owns its time) are the two ways to take part; `gateway`, `policy`,
`authority`, `compiler`, `reader`, `courier` and `console` use the first, `engine` and `auditor` the second. Each module's
`serve(member)` wires its package and returns when drained. `barred` comes before all, `entry` knows the roles, `running` is
the life around `engine` and `auditor`; `ranks` starts an engine of several ranks, of which `rank` is every one but the
first; `confinement` and `refusal` come before serving, `memory` and `niceness` are for those that must not pause. A process
that loses its supervisor ends itself: it could not be restarted, and nobody would know.
"""
