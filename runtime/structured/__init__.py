"""Constrained output: a grammar says at every token which may come next.

Reading order: `library` (xgrammar, without its Python package), `vocabulary` (tokens as bytes), `bounds` (lengths that cost
no states), `trimming` (no rule is sent twice), `compiler` (structure to grammar, in a process that may be killed), `text_bounds`
(which tokens fit near a length), `following` (one text along a grammar), `matching` (the same for one choice, by the clock; masks
for the sampler), `walking` (the compiler tries a grammar before anybody follows it).

A *structure* is xgrammar's structural tag, a JSON document: schemas, regular expressions and EBNF are leaves of it, tool calls are
tags around schemas. A *grammar* is what it compiles to for one vocabulary, serialized. Structures come from anybody, and compiling
one may take any time and memory; so it happens in processes of its own, and only grammars reach an engine.

Imports: xgrammar's library by tvm-ffi, numpy, `runtime.errors`. Only the processes of engines and of the compiler import this
package; the compiler's has no torch.
"""
