"""Tells `compliance` what only the appliance knows of an installation, as plain values.

Reading order: `answers` (facts of the configuration and the definitions), `witnesses` (their last word), `starts` (what the log
says of the last one), `inventory` (people, programs, roles, static keys), `key_files` (keys on the host, without themselves),
`gathering` (all of it), `places` (where the log and the packs' key lie). Everything here reads; the one thing that is made is
the key that signs packs.
"""
