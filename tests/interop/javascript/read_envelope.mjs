// A DSSE envelope by sigstore's own reader: node read_envelope.mjs ENVELOPE PUBLIC_KEY
//
// Prints a JSON object: the payload's type, the payload, and whether each signature verifies over the pre-authentication encoding.
import crypto from 'node:crypto'
import fs from 'node:fs'
import { dsse } from '@sigstore/core'
import { Envelope } from '@sigstore/protobuf-specs'

const [file, keyFile] = process.argv.slice(2)
const { payloadType, payload, signatures } = Envelope.fromJSON(JSON.parse(fs.readFileSync(file)))
const key = crypto.createPublicKey(fs.readFileSync(keyFile))
const signed = dsse.preAuthEncoding(payloadType, payload)
const verified = signatures.map(({ sig }) => crypto.verify('sha256', signed, key, sig))
console.log(JSON.stringify({ payloadType, payload: JSON.parse(payload), verified }))
