"""The first five minutes: `casemate demo`, and the demo model with all that made it.

`run` is the demonstration, and `client` what a client does in it. `corpus` generates the text that the model was
trained on; `vocabulary` and `chat` make tokens of it, `feed` brings them to training; `train` and `draft` make the
model and its head, `tasks`, `scoring` and `evaluate` measure it, `card` words what was measured. `model/` and `head/`
are the results in Hugging Face layout, each with its card.
"""
