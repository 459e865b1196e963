"""Starts the processes, connects them, watches them, restarts them with back-off, drains them. Part of the trusted base.

Reading order: `settings`, `backoff`, `child` (one process), `wiring` (links and listeners), `supervisor` (all of them).
"""
