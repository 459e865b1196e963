"""Loads the model that an `[[engines]]` entry names, and says of it what gateways and records must know."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import structlog

from appliance.gateway.text.model_folder import OnRead
from appliance.inference.rank_facts import rank_facts, tell_rank_facts
from appliance.inference.vocabulary import load_grammar_vocabulary
from appliance.messages.engine import ModelFacts, RankFacts
from runtime.batch import ModelRunner
from runtime.errors import EngineMisconfigured
from runtime.identifiers import PAGE_SIZE
from runtime.parallel.channel import Channel
from runtime.parallel.leading import LeadingRunner
from runtime.runner.building import REFERENCE_TOTAL_TOKENS, build_runner, runs_on_reference, verify_ranks
from runtime.runner.device_building import build_device_runner
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.kernel_choice import choose_kernels
from runtime.runner.torch_runner import TorchRunner
from runtime.settings import EngineSettings
from runtime.speculative.options import speculation_options
from runtime.speculative.source import HeadSource
from runtime.structured.matching import Grammars
from runtime.weights.file_check import FileCheck
from runtime.weights.shares import WHOLE

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, ready to run."""

    runner: TorchRunner | DeviceRunner
    """This rank's."""
    all_ranks: ModelRunner
    """What steps are launched on: the same, or with it the runners of the other ranks."""
    facts: ModelFacts
    grammars: Grammars | None
    """Of constrained output; None where the vocabulary cannot be read."""

    @property
    def name(self) -> str:
        """The served name, which tickets and records name."""
        return self.facts.name


@dataclass(frozen=True)
class RankRunner:
    """One rank's part of a model, ready to run."""

    runner: TorchRunner | DeviceRunner
    facts: RankFacts
    kernels_digest: str = ""
    """Of the kernel bundle that it runs on, if it is frozen."""


def load_model(
    settings: EngineSettings,
    name: str,
    progress: Callable[[], None],
    verify: FileCheck | None = None,
    on_read: OnRead | None = None,
    verify_head: FileCheck | None = None,
    draft_levels: tuple[int, ...] = (),
    channel: Channel | None = None,
) -> LoadedModel:
    """Read the checkpoint into memory and allocate its KV pages.

    Args:
        progress: called from time to time while bytes are read, so that a slow disk is not taken for a hang.
        verify: asked about the digests of what was read, before anything is computed from it.
        on_read: called with each smaller file that is read whole.
        verify_head: as `verify`, for the draft head, if there is one.
        draft_levels: see `HeadSource.levels`.
        channel: of the first of several ranks, to the others.
    Raises: CheckpointRejected, EngineMisconfigured, and what `verify` and `on_read` raise.
    """
    built = build_runner_of(settings, progress, verify, verify_head, draft_levels, channel)
    runner, kernels_digest = built.runner, built.kernels_digest
    context_length = settings.context_length or runner.config.max_position
    if context_length > runner.config.max_position:
        raise EngineMisconfigured(
            f"engines.context_length: {context_length} is more than the model's {runner.config.max_position} positions"
        )
    held = (runner.num_pages - 1) * PAGE_SIZE
    if settings.context_length > held:
        raise EngineMisconfigured(
            f"engines.context_length: {settings.context_length} is more than the {held} tokens that the KV cache holds; raise "
            "max_total_tokens, or lower it"
        )
    facts = ModelFacts(
        name=name,
        vocab_size=runner.vocab_size,
        context_length=min(context_length, held),
        eos_token_ids=list(runner.config.eos_token_ids),
        engine_build=_engine_build(runner.weights_digest, kernels_digest, runner.cache.name, settings.tp_size),
        has_unscaled_cache=runner.cache.is_unscaled,
        ranks=tell_rank_facts(built.facts, channel),
    )
    if facts.has_unscaled_cache:
        log.warning(
            "kv_cache_unscaled",
            reason="neither the checkpoint nor quantization_param_path has scales of keys and values for e4m3, so they are 1: "
            "what is beyond 448 is cut off, and small numbers lose precision; casemate calibrate measures scales",
        )
    log.info(
        "model_loaded",
        model=name,
        weights_sha256=runner.weights_digest,
        kernels_sha256=kernels_digest,
        pages=runner.num_pages,
        cache=runner.cache.name or str(runner.cache.dtype).removeprefix("torch."),
        cache_scales=runner.cache.origin,
        ranks=settings.tp_size,
    )
    vocabulary = load_grammar_vocabulary(Path(settings.model_path), facts.eos_token_ids, facts.vocab_size, on_read)
    all_ranks = runner if channel is None else LeadingRunner(runner, channel)
    return LoadedModel(runner, all_ranks, facts, None if vocabulary is None else Grammars(vocabulary))


def _head_of(settings: EngineSettings, verify: FileCheck | None, levels: tuple[int, ...]) -> HeadSource | None:
    """The draft head that the settings name. Raises: EngineMisconfigured for options that contradict each other."""
    options = speculation_options(settings)
    if options is None:
        return None
    path, is_dummy = Path(settings.speculative_draft_model_path), settings.load_format == "dummy"
    return HeadSource(path, is_dummy, verify, levels, topk=options.shape.topk)


def build_runner_of(
    settings: EngineSettings,
    progress: Callable[[], None],
    verify: FileCheck | None,
    verify_head: FileCheck | None,
    draft_levels: tuple[int, ...] = (),
    channel: Channel | None = None,
) -> RankRunner:
    """What computes a rank's part of a model. See `load_model`."""
    rank = 0 if channel is None else channel.share.rank
    folder, head = Path(settings.model_path), _head_of(settings, verify_head, draft_levels)
    if runs_on_reference(settings):
        verify_ranks(settings, WHOLE if channel is None else channel.share)
        runner = build_runner(
            folder,
            num_pages=(settings.max_total_tokens or REFERENCE_TOTAL_TOKENS) // PAGE_SIZE + 1,
            device=settings.device,
            dtype=settings.dtype,
            load_format=settings.load_format,
            quantization=settings.quantization,
            kv_cache_dtype=settings.kv_cache_dtype,
            quantization_param_path=settings.quantization_param_path,
            num_threads=settings.num_threads or None,
            progress=lambda _done, _total: progress(),
            verify=verify,
            head=head,
            channel=channel,
        )
        return RankRunner(runner, RankFacts(rank))
    kernels = choose_kernels(settings, lambda sentence: log.warning("kernels", reason=sentence))
    built = build_device_runner(folder, settings, kernels, advance=progress, verify=verify, head=head, channel=channel)
    log.info("gpu", name=built.card.name, uuid=built.card.uuid)
    for line in built.memory.lines():
        log.info("memory", part=line)
    return RankRunner(built.runner, rank_facts(rank, built.card, built.memory), kernels.digest)


def _engine_build(weights_digest: str, kernels_digest: str, cache: str, num_ranks: int) -> str:
    """What computed an answer, in one short word: our version and torch's, and the digests of what was loaded.

    Args:
        cache: what pages hold, if not the model's own dtype, see `CacheFormat.name`.
    """
    build = f"casemate {version('casemate')}, torch {version('torch')}, weights {weights_digest}"
    if kernels_digest:
        build += f", kernels {kernels_digest}"
    if cache:
        build += f", cache {cache}"
    if num_ranks > 1:  # Sums over ranks are rounded otherwise.
        build += f", {num_ranks} ranks"
    return f"{version('casemate')}+{hashlib.sha256(build.encode()).hexdigest()[:16]}"
