"""Signed model folders, in the OpenSSF Model Signing format (OMS) v1.0: who vouches for them, and that they are whole.

Reading order: `names` (what a file may be called), `folder` (an open folder and what lies in it), `algorithms` (SHA-256 and
BLAKE3), `digests` (those of all files, in parallel), `manifest` (names, digests and the root digest), `members` (typed members
of untrusted JSON), `statement` (the in-toto statement that is signed), `bundle` (the signature file: DSSE in a Sigstore bundle),
`elliptic` (ECDSA on three curves), `chain` (certificates up to a pinned root), `signer` (keys in files), `token` (keys in
PKCS#11 tokens), `signing` (`sign_model`), `trust` (whose signatures count, and what one says), `verification` (`verify_model`,
and the folder against the signature).

What always holds: a signature covers every file of a folder or the folder is refused: no unlisted file, no symbolic link, no
special file. Nothing from the folder or the signature is believed before the signature is good. Only `SecurityFault`s leave.

Refused although the format has them: the keyless method (it needs Sigstore's services), digests by shard, BLAKE2b,
predicates older than v1.0, and the option to tolerate unlisted files.
Sources: OMS v1.0; in-toto Statement v1; DSSE v1.0; Sigstore bundle v0.3.
"""
