"""The first five minutes: `casemate demo`, and the demo model with all that made it.

`run` is the demonstration; `corpus` generates the text that the model was trained on; `train` and `evaluate` make and
measure the model; `model/` is the checkpoint in Hugging Face layout, with its model card.
"""
