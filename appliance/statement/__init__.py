"""The running statement: what exactly computes the answers, measured by the launcher before it starts anything.

Reading order: `measuring` (files, from open descriptors), `attesting` (the TPM's word for it, where there is one), `statement` (the
whole, its digest, where it is kept), `remembering` (the configuration of the start before), over `files`. It is appended to the
log, and every answer names its digest in the header `casemate-statement`.
"""
