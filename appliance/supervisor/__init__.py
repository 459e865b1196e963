"""Starts the processes, connects them, watches them, restarts them with back-off, drains them. Part of the trusted base.

Reading order: `settings`, `provision` (what must exist before), `confinement` and `ownership` (what each process may
touch, as whom), `precedence` (who computes first), `backoff`, `child` (one process), `wiring` (links and listeners),
`lifecycle`, `notices` and `own_life` (what the log is told), `measuring` (what is about to run), `announcements` (what a
service manager is told), `certificates` and `issuer_files` (files that change), `rounds` (what is looked after from time to
time), `supervisor` (all of them).
"""
