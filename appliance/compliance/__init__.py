"""Tells `compliance` what only the appliance knows of an installation, as plain values.

Reading order: `answers` (facts of the configuration and the definitions), `inventory` (people, programs, static keys),
`key_files` (keys on the host, without themselves), `gathering` (all of it), `places` (where packs' key and the log lie).
Everything here reads; the one thing that is made is the key that signs packs.
"""
