"""A TPM 2.0 that vouches for a digest: a quote over it and over what the machine measured while it booted.

Reading order: `wire` (numbers and sized buffers, as the specification marshals them), `device` (one command to the TPM and its
answer), `attestation_key` (the key that quotes: made from the TPM's own seed, the same at every start, never outside), `quote` (as
it is kept), `verification` (`verify_quote`, offline, with nothing but the key), `quoting` (`take_quote`).

What always holds: nothing in the TPM is changed: no PCR is extended, nothing is stored, no hierarchy is given a password. A quote
that was just taken is verified before it is given to anybody. May import the errors of `security` and `cryptography`.

What a quote is worth: the TPM with this key has signed this digest, with these PCRs, at this count of its restarts. That the key
is of a real TPM and of this host is for whoever enrols it to see; and whoever is root on the host can have another digest signed.
Why our own client and not tpm2-tools or tpm2-pytss: four commands are all, the image has no room for libtss2, and the bindings
have no wheel that can be pinned. `tpm2_checkquote` takes our quotes: it is a judge in the tests.
Source: TCG TPM 2.0 Library, revision 1.59, parts 2 (structures) and 3 (commands).
"""
