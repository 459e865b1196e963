"""What stands around draft heads: prompts from a file, the engine that answers them, training, tuning and their reports.

Reading order: `order` (what is asked for), `prompts` (the file, strictly), `training` (answers, then the head), `report`
(tables and report.json); `tuning` (which drafts are fastest). `casemate draft` and `casemate bench speculative` are the
commands. May import `appliance.gateway` for tokenizer and template, so that
prompts are to the token those that clients' requests become, and `runtime.training.draft`, which does the tensors.
"""
