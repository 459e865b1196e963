"""What stands around the training of draft heads: prompts from a file, the engine that answers them, and the report.

Reading order: `order` (what is asked for), `prompts` (the file, strictly), `training` (answers, then the head), `report`
(tables and report.json). `casemate draft` is the command. May import `appliance.gateway` for tokenizer and template, so that
prompts are to the token those that clients' requests become, and `runtime.training.draft`, which does the tensors.
"""
