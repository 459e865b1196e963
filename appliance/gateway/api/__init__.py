"""The routes: what clients may ask, word for word, and what they get.

Reading order: `fields` (parameters and their bounds), `parameters` (strictness), `validation` (against the model);
`chat_messages`, `tool_schemas`, `text_patterns`, `written_schema`, `schema_loops`, `constrained_schema` and `structured` (parts of
requests);
`chat_request`, `completion_request`, `native_members` (what SGLang's tools say besides), `generate_request`, `messages_request`,
`responses_request` (JSON, checked by itself), `naming` (refusals by what was sent); `query` (parameters beside a body), `paging`
(lists in pages); `tokenization`, `intake` (all of step (3): to `flow.request.Asked`), `endpoint` (one for all that computes),
`dialects`, `text_events` and `streaming` (the wire);
`shapes` (OpenAI's objects), `logprobs`, `content_tokens` and `reading` (an answer by the model's forms), `chat`, `completions`,
`generate` (answers); `blocks` (an answer as blocks), `messages`; `embeddings`, `tokens`, `recording` (requests that only change
something), `native`, `listing`, `receipts`, `log_reading`, `custody`, `health`, `scrape`, `protected_resource`, `openapi`,
`registration` (the whole route table).

Responses are the largest: `response_turns` (items as messages), `response_items`, `response_words` (one in words), `response_file`,
`worker_lives` and `response_store` (where they are kept), `response_reasoning` (encrypted for clients), `response_inputs`,
`response_conversation` (what one is made of), `background_store`, `running`, `mirrors`,
and `background` (those that outlive their request), `following` (their events), `responses`, `stored_responses`, `input_tokens`.

A parameter is either honoured or refused by name; none is ignored, but for the few that `parameters.ACCEPTED_HINTS` lists.
"""
