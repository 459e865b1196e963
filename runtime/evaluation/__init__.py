"""What a change of a model's form costs in accuracy.

`comparison`: two forms of one model over the same text, token by token. Imports torch and `runtime.runner`; arithmetic is the
reference's, plain torch, which is the judge of every kernel.
"""
