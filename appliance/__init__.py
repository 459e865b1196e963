"""Wires the product together: command line, configuration, supervision, processes, gateway.

Reading order: `config` (one strict file), `messages` (what crosses process boundaries), `ipc` (how it crosses),
`supervisor` (who starts, watches and connects whom), `processes` (the entry of each process); a package for what each
of them does: `gateway`, `authority`, `policy`, `auditor`, `inference` (the engine's process around `runtime`),
`grammars`, `reader`, `console`; what several use: `logging`, `telemetry`, `statement` (what exactly runs), `models`;
`cli`, and behind its commands `health`, `compliance`, `drafting`, `bench`, `demo`.

May import everything below it; nothing imports it. Web frameworks live here only; torch and numpy never do.
"""
