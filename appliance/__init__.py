"""Wires the product together: command line, configuration, supervision, processes, gateway.

Reading order: `config` (one strict file), `messages` (what crosses process boundaries), `ipc` (how it crosses), `supervisor`
(who starts, watches and connects whom), `processes` (the entry of each process), `gateway`, `authority`, `auditor`, `cli`, `demo`.

May import everything below it; nothing imports it. Web frameworks live here only; torch and numpy never do.
"""
