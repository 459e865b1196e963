"""The policy process's parts: definitions from SQL, answers to gateways and to the authority, records of changes, the
admin API.

Reading order: `locations` (where definitions and their key lie), `ownership` (whose they are), `store` (definitions in memory),
`service` (gateways), `authority_desk` (the authority), `recording` (changes into the log), `usage` (quotas anew from the log),
`administration` (the admin API); for commands `registration` (of a client) and `backup`.

What always holds: definitions that cannot be read let nobody in; nothing here holds a signing key.
"""
