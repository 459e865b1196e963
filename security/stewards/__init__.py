"""Who may bring a model in, and who must agree before it answers anybody.

Reading order: `envelope` (DSSE with several signatures), `role_file` (people, their keys and roles), `statements` (what is
signed), `allowlist` (which files a model folder may hold), `load_digests` (by which weights are verified when they are loaded),
`truss` (an import format), `store` (where models lie), `importing`, `approving` (approve, promote, retire), `admission` (what the
launcher asks before a model is loaded), `outbox` (events that wait for the log).

What always holds: a model that is served was signed by an importer and approved by two other people, all of them named in a
role file that the root of trust has signed; the evidence lies beside the model and is verified again at every start.
"""
