"""The grammar compiler: structures from anybody, each compiled in a process of its own that dies with it.

Reading order: `settings`, `child` (one structure, in a forked process under limits that the kernel enforces), `service` (whose
structure is next). `processes.compiler` wires both. A child also follows what it compiled (`runtime.structured.walking`). Nothing
of one structure is left for the next: what compiled it is gone.
"""
