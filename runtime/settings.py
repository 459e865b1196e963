"""One `[[engines]]` entry of the configuration: the model, where it runs, and how much at once."""

from typing import Annotated, Literal

import msgspec


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An engine process and the model that it serves."""

    model_path: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=4096,
            description="Folder of the checkpoint, relative to the configuration's folder.",
            extra={"path": True},
        ),
    ]
    served_model_name: Annotated[
        str,
        msgspec.Meta(
            max_length=256, description="Name that clients ask for; empty: the last part of the model folder's path."
        ),
    ] = ""
    device: Annotated[Literal["cpu", "cuda"], msgspec.Meta(description="Where the model runs.")] = "cpu"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        msgspec.Meta(
            description="Type of weights and activations, and of KV pages if kv_cache_dtype is auto; auto: float32 on cpu, the "
            "checkpoint's on cuda."
        ),
    ] = "auto"
    quantization: Annotated[
        Literal["auto", "fp8"],
        msgspec.Meta(
            description="auto: weights as the checkpoint has them; fp8: those of a checkpoint that is not quantized are "
            "rounded to e4m3 as they are read, all but embedding and head. On cuda FP8 needs dtype bfloat16."
        ),
    ] = "auto"
    kv_cache_dtype: Annotated[
        Literal["auto", "fp8_e4m3"],
        msgspec.Meta(
            description="Type of KV pages; auto: that of weights and activations; fp8_e4m3: half of bfloat16's bytes, with one "
            "scale each for the keys and the values of a layer: from quantization_param_path, else from the checkpoint, else 1, "
            "which is warned of."
        ),
    ] = "auto"
    quantization_param_path: Annotated[
        str,
        msgspec.Meta(
            max_length=4096,
            description="File of the KV cache's scales, which `casemate calibrate` makes, relative to the configuration's "
            "folder; files of SGLang are read, too. Empty: none. Only with kv_cache_dtype fp8_e4m3.",
            extra={"path": True},
        ),
    ] = ""
    attention_backend: Annotated[
        Literal["auto", "flashinfer", "triton", "reference"],
        msgspec.Meta(
            description="Implementation of attention; flashinfer and triton: on cuda, in CUDA graphs; reference: plain "
            "torch, on any device, without graphs; auto: on cuda prompts by flashinfer where it serves the model's shape "
            "and decoding by triton, on cpu reference. flashinfer does not decode from KV pages of fp8_e4m3, and "
            "computes prompts over them where copying their contexts pays; with speculative_algorithm it computes prompts, and "
            "triton verifies."
        ),
    ] = "auto"
    deterministic: Annotated[
        bool,
        msgspec.Meta(
            description="A request's tokens and logprobs are the same to the bit whatever else the engine does, and however its "
            "prompt is divided into chunks and cached parts. On cuda by slower kernels, for weights in bfloat16 or float16, with "
            "drafts in chains or none; on cpu it is always so."
        ),
    ] = False
    kernels_path: Annotated[
        str,
        msgspec.Meta(
            max_length=4096,
            description="Folder of compiled kernels, relative to the configuration's folder: with frozen a bundle that "
            "`casemate kernels build` made, else attention libraries as files; empty: none. Not read on cpu.",
            extra={"path": True},
        ),
    ] = ""
    frozen: Annotated[
        bool,
        msgspec.Meta(
            description="Take kernels only from the bundle in kernels_path, verify every byte of it, and compile nothing. "
            "Not read on cpu."
        ),
    ] = False
    kernels_sha256: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^([0-9a-f]{64})?\Z",
            description="With frozen: the digest of the only bundle that is accepted, as `casemate kernels verify` prints it; "
            "empty: any bundle that is whole.",
        ),
    ] = ""
    tp_size: Annotated[
        int,
        msgspec.Meta(
            ge=1,
            le=16,
            description="Ranks that share the model's heads and inner features, each a process; on cuda each has a GPU of its own, "
            "from base_gpu_id on, and reads the others' memory. A divisor of the key/value heads.",
        ),
    ] = 1
    base_gpu_id: Annotated[
        int, msgspec.Meta(ge=0, le=63, description="The first GPU that the engine uses. Not read on cpu.")
    ] = 0
    load_format: Annotated[
        Literal["auto", "dummy"],
        msgspec.Meta(
            description="auto: the checkpoint's weights; dummy: random weights, for benchmarks only: refused in production."
        ),
    ] = "auto"
    context_length: Annotated[
        int,
        msgspec.Meta(ge=0, le=1 << 20, description="Most tokens of prompt and output together; 0: the model's own."),
    ] = 0
    max_total_tokens: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=1 << 28,
            description="Most tokens that the KV cache holds over all requests, in whole pages of 16; 0: 32,768 on cpu, "
            "and on cuda what the memory holds.",
        ),
    ] = 0
    mem_fraction_static: Annotated[
        float,
        msgspec.Meta(
            ge=0.0,
            le=0.99,
            description="Share of the GPU's memory for weights and KV cache together; 0: all that the largest step and "
            "the captured graphs, which are measured at start, leave. Not read on cpu.",
        ),
    ] = 0.0
    cuda_graph_max_bs: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=4096,
            description="Largest batch of decodes that is captured as a CUDA graph; larger ones run without. 0: no graphs. "
            "Not read on cpu.",
        ),
    ] = 512
    piecewise_cuda_graph_max_tokens: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=1 << 14,
            description="Largest step with prompt tokens, in tokens, that is captured as CUDA graphs between the attentions of its "
            "layers; larger ones run without. 0: none. Not read on cpu.",
        ),
    ] = 2048
    chunked_prefill_size: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=1 << 20,
            description="Most prompt tokens in one step, over all requests, while no answer is being decoded; "
            "0: 8192 on cuda, 512 on cpu.",
        ),
    ] = 0
    mixed_prefill_size: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=1 << 20,
            description="Most tokens of a step that both decodes answers and computes prompts, an eighth of it for prompts in any "
            "case; fewer are taken as long as prompts keep up with answers. Smaller: steadier decoding beside prompts; larger: "
            "prompts are through sooner. At most chunked_prefill_size. 0: 2048 on cuda, 512 on cpu, or chunked_prefill_size where "
            "that is less.",
        ),
    ] = 0
    max_running_requests: Annotated[
        int,
        msgspec.Meta(
            ge=1, le=4096, description="Most answers generated at once; each of a request's n choices counts."
        ),
    ] = 64
    max_queued_requests: Annotated[
        int,
        msgspec.Meta(ge=1, le=1 << 20, description="Requests that may wait for their turn; beyond, they are refused."),
    ] = 1024
    schedule_policy: Annotated[
        Literal["fcfs", "lpm"],
        msgspec.Meta(
            description="Order of waiting requests of equal priority; fcfs: by arrival, lpm: longest cached prefix first."
        ),
    ] = "fcfs"
    disable_radix_cache: Annotated[
        bool, msgspec.Meta(description="Never share pages between requests; for measurements.")
    ] = False
    overlap_schedule: Annotated[
        bool, msgspec.Meta(description="Launch each step before the tokens of the step before it are read.")
    ] = True
    speculative_algorithm: Annotated[
        Literal["", "EAGLE3"],
        msgspec.Meta(
            description="EAGLE3: a draft head proposes tokens that the model verifies; empty: no speculation."
        ),
    ] = ""
    speculative_draft_model_path: Annotated[
        str,
        msgspec.Meta(
            max_length=4096,
            description="Folder of the draft head, relative to the configuration's folder; with speculative_algorithm only.",
            extra={"path": True},
        ),
    ] = ""
    speculative_num_steps: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=15,
            description="Drafts made one after the other for each answer; 0: 5. It, speculative_eagle_topk and "
            "speculative_num_draft_tokens are set all or none.",
        ),
    ] = 0
    speculative_eagle_topk: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=16,
            description="Tokens tried behind each of as many drafts in every step; 1: a chain, more: a tree. 0: 1.",
        ),
    ] = 0
    speculative_num_draft_tokens: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=256,
            description="Tokens verified at once, the newest included: a chain's steps and 1; of a tree the likeliest nodes, at "
            "least as many as a path has and at most all that are tried. 0: a chain's.",
        ),
    ] = 0
    speculative_adaptive: Annotated[
        bool,
        msgspec.Meta(
            description="Make fewer drafts, or none, where the engine measures that answers come faster so; "
            "false: always all; with speculative_algorithm only. Without effect on texts."
        ),
    ] = True
    watchdog_timeout_s: Annotated[
        float,
        msgspec.Meta(
            ge=1.0, le=3600.0, description="Seconds after which a step counts as hanging and the engine is restarted."
        ),
    ] = 60.0
    readiness_probe_interval_s: Annotated[
        float,
        msgspec.Meta(
            ge=0.1,
            le=3600.0,
            description="Seconds without a token after which an idle engine makes one to prove itself.",
        ),
    ] = 5.0
    num_threads: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=1024,
            description="Threads of the CPU device's kernels; 0: torch's own choice. "
            "Texts are the same to the bit for the same number.",
        ),
    ] = 1

    @property
    def prefill_sizes(self) -> tuple[int, int]:
        """Most prompt tokens in a step without and with decoding, the device's defaults filled in."""
        alone = self.chunked_prefill_size or (8192 if self.device == "cuda" else 512)
        mixed = self.mixed_prefill_size or (2048 if self.device == "cuda" else 512)
        return alone, min(alone, mixed)
