"""EAGLE-3: a small head drafts the next tokens, the target verifies them in one pass, and no text changes.

Reading order: `options` (what is configured), `source` (where a head comes from), `config` (what its folder says, and
whether it fits its target), `loading` (its weights), `head` (the network), `fused` (the same on a GPU), `captured`
(hidden states of the target that it reads), `continuing` (rows whose place only the device knows), `accepting` (which
drafts are the tokens that plain decoding chooses), `growing` (trees of drafts, which of their nodes are kept),
`unfolding` (a tree as its paths, for the reference's attention), `drafting` (a step's drafts, in plain torch),
`adapting` (how many pay), `backlog` (what the head reads later, where none do).

A step of a speculating engine is: the target's pass over prompts' chunks and over each answer's last token with its drafts;
the choice of a token at every one of these positions, exactly as plain decoding makes it; the drafts that equal those tokens
are accepted; then the head reads what the target computed, and drafts for the step after. So

    a draft is accepted if, and only if, it is the token that plain decoding chooses at its position;
    at any temperature the same seed gives the same text with and without speculation (Daliri et al. 2024);
    the head decides how fast a text comes, never which text.

Where drafts are trees (`speculative_eagle_topk` above 1) the tokens of a step are those chosen on one path: at each accepted row
the token is chosen as plain decoding does, and the path goes on if a child is that token. So the three lines hold for trees too.

The head's keys and values have pages of their own under the target's page numbers: one page table serves both. The entry at a
position combines the target's hidden state there with the token after it, so the last entry of a page that prompts share may
be of another continuation. That can cost an accepted draft, and nothing else.

While no drafts are made no entries are, nor is the head's part of a prefill: what they follow from is kept for a while, and they
are made when drafts are wanted again, see `runtime.scheduling.backlog`. Where some are lost the head looks at later pages only.

Imports: torch, `runtime.draft_shape`, `runtime.attention`, `runtime.layers`, `runtime.weights`, `runtime.batch`. Knows no requests.
Source: EAGLE-3, Li et al. 2025; the format is that of the heads that SGLang, vLLM and SpecForge publish and load.
"""
