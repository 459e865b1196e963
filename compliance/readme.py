"""`README.txt` of a pack: for whoever opens the folder without having heard of Casemate."""

README = """\
EVIDENCE PACK

This folder is what one installation of Casemate, an appliance that serves language models, can show about one framework of
controls and one period. Begin with report.html or report.pdf.

  report.html, report.pdf            summary, what is missing, what happened, every control with its evidence, plan of action
  responsibility-matrix.csv, .html   who does what about each control
  objectives.csv, poam.csv           each assessment objective; everything that is open
  score.json                         the SPRS score, where the framework has one
  oscal/                             the same for machines, in NIST's OSCAL
  facts.json, statements.toml        what was found about the installation; what the organization stated
  configuration.json                 the effective configuration with secrets hidden, and the SHA-256 of its file
  software/                          bill of materials, what was measured at the last start, results of the tests of this build
  identity/, keys.csv                people, programs, static keys; keys on the host, without the keys
  log/checkpoint                     the signed tree of the log
  log/cosigned, consistency.proof    the witnesses' word on a tree that this one extends, where there was one
  log/summary.json                   counts over all records of the period
  log/extracts/                      the newest records of each kind, one JSON object a line, as they were signed
  log/proofs/                        a proof for each of these records
  log/edges/                         first and last record of the period, and those before and behind it, with a proof each
  log/records/                       every record of the period with proofs, where that was asked for
  manifest.json, manifest.sig        SHA-256 of every file; the signature of whoever made the pack

VERIFY IT

  casemate compliance verify FOLDER --key LOG_VKEY --signer PACK_VKEY

needs this folder and two public keys, which must come to you by another way. By hand:

1. sha256sum manifest.json. manifest.sig is a C2SP signed note over two lines, "casemate-evidence-pack/2" and "sha256:" with
that digest. 2. sha256sum of each file is what manifest.json says, and no other file is here. 3. log/checkpoint is a C2SP
checkpoint, signed by the log's key. 4. log/proofs/N.tlog-proof (C2SP tlog-proof) shows that the record whose
metadata.sequence is N, as it stands in log/extracts, is a leaf of that tree: SHA-256 over a zero byte and the record, then
RFC 6962. 5. The same of log/edges: manifest.json says from which record (start) to before which (end) the period goes; the records
within have a time (milliseconds since 1970) in it, those outside have not. So no record was left out at either end.

What a signature here shows is who made the pack, and that it was not changed since; verdicts, facts, counts and charts are that
maker's word. What the records say is shown by the log's key and by witnesses of the log. What the tests show is the vendor's
word, as signed with the release: compare software/control-results.json with the file in it.
"""
