"""What a model writes besides prose: tool calls and reasoning, taken out of an answer's text as it grows.

Reading order: `events` (what a parser gives), `json_text` (one JSON value, character by character), `json_call` (one
call as a JSON object), `marked` (text in which a mark is watched for), a module for each form in which model families
write calls (`hermes`, `llama3_json`, `mistral`, `pythonic`, `deepseek`), `reasoning`, `form_names` and `forms` (which
form a model writes), `reader` (reasoning, calls and text of one choice), `structure` (a form as a grammar, for calls that must
come). Imports `text.stops` and msgspec only; knows no HTTP.

Always holds: what a parser gives depends on the text alone, never on how it came in pieces; of what is no call nothing is lost;
what is held back is bounded; nothing but text leaves a parser, whatever text goes in: none raises.
"""
