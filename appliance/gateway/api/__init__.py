"""The routes: what clients may ask, word for word, and what they get.

Reading order: `fields` (parameters and their bounds), `parameters` (strictness), `validation` (against the model), `chat_request`,
`completion_request`, `generate_request` (JSON, checked by itself), `intake` (all of step (3): to `flow.request.Asked`), `endpoint`
(one for all that computes), `shapes` (OpenAI's objects), `logprobs`, `chat`, `completions`, `generate` (answers); `blocks` (an
answer as blocks), `messages`, `responses`; `tokens`, `native`, `listing`, `receipts`, `health`, `scrape`, `registration` (the whole
route table).

A parameter is either honoured or refused by name; none is ignored, but for the few that `parameters.ACCEPTED_HINTS` lists.
"""
