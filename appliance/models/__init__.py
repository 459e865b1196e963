"""Models between the stewards' rules and what reads them: the checks of an import, and admission at start.

Reading order: `places` (where store and trust lie), `checks` (what an import looks at), `admission` (what gateway, engine and
supervisor ask before they load), `naming` (of which model an error is). `security.stewards` decides; `runtime` and the gateway
know how to read a model; here they meet.
"""
