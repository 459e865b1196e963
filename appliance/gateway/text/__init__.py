"""Text to token ids and back: what the gateway knows of a model's vocabulary.

Reading order: `model_folder` (the files, strictly), `vocabulary` (bytes of each token), `detokenizer` (ids to text, as
they come), `stops` (stop strings), `special_tokens` (what a user may never forge), `tokenizer` (text to ids), `sandbox`
and `template` (messages to text). Imports the standard library, tokenizers, jinja2 and msgspec. Knows no HTTP, no
identities and no peers.

Always holds: no text of a client ever becomes a control token, wherever it stands in a request; text goes out in whole
characters only.
"""
