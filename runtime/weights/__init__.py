"""Model folders in Hugging Face layout: what they say, whether they may be trusted to be whole, and reading them.

Reading order: `json_file` (strict, bounded JSON), `fields` (typed fields of a JSON object), `config` (the frozen
`ModelConfig` from `config.json` and `generation_config.json`), `rope` (its rotary part), `quantization` (its FP8 part),
`folder` (what may not lie in a model folder), `header` (the untrusted header of a safetensors file), `shares` (what several
ranks have of a model), `layout` (which tensors a model needs and where each goes), `checkpoint` (all shards, checked
against each other and the layout), `file_check` (who says whether bytes are right), `placing` (where they go), `loading`
(bytes into tensors, with progress and the digest of what was loaded), `arriving`, `windows`, `ordered_digest` and
`tree_digest` (a tensor, memory, and a file's digest by cores or by the GPU, while many threads read), `device_loading` (the
same to a GPU), `cache_scales` and `cache_scales_file` (of a KV cache in e4m3).

Imports: the standard library, `runtime.errors`; torch in `loading` alone, so that the gateway can read a model's limits
and defaults without it.

Always: a folder is refused as a whole (`CheckpointRejected`, naming file and tensor) before any byte of it becomes a
weight. Nothing here unpickles, imports or runs what lies in a folder, and nothing is fetched.
"""
