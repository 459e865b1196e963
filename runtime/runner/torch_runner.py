"""One step on one device: `StepBatch` in, `StepResult` out.

The life of a step: (1) pages are copied; (2) each token gets a row and, if it is not known on the host yet, its id from
the samples of the step before, on the device; (3) attention is planned; (4) the layers run; (5) logits of the rows to be
sampled, and the choice; (6) logprobs; (7) on `result()`, the copy to the host. Only (7) waits for the device.

With a draft head a step ends with (8): which drafts were accepted, and the drafts for the step after. There the reference
waits for the device, as it plans by values; see `runtime.speculative`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runtime.attention.backend import AttentionBackend, AttentionBatch
from runtime.attention.pages import copy_pages, move_slots
from runtime.batch import ChainResult, Int32, Int64, StepBatch, StepResult, TreeResult
from runtime.identifiers import PAGE_SIZE
from runtime.models.decoder import Decoder
from runtime.runner.cache_choice import CacheFormat
from runtime.runner.rows import Placement, RowGrouping
from runtime.runner.scoring import sample_logits, score_prompt
from runtime.runner.verification import verify_ids
from runtime.sampling.logprobs import DeviceLogprobs, logprobs_of
from runtime.sampling.sampler import SampledTokens, Sampler
from runtime.speculative.accepting import count_tokens, follow_paths
from runtime.speculative.captured import CapturedStates
from runtime.speculative.continuing import NO_CHAINS, ChainEnds, depths_of, resolve
from runtime.speculative.drafting import Drafter
from runtime.speculative.unfolding import Sequences, unfold
from runtime.step_sizes import MIXED_SIZES, MixedSizes
from runtime.weights.config import ModelConfig


@dataclass(frozen=True, slots=True)
class TorchStep:
    """A launched step: its results on the device."""

    sampled: SampledTokens
    logprobs: DeviceLogprobs | None
    prompt_logprobs: DeviceLogprobs | None
    embeddings: Tensor | None
    chains: ChainResult | None = None
    draft_prefill_s: float = 0.0

    def result(self) -> StepResult:
        """See `LaunchedStep.result`."""
        return StepResult(
            token_ids=self.sampled.token_ids.cpu().numpy(),
            is_finite=self.sampled.is_finite.cpu().numpy(),
            logprobs=self.logprobs.to_host() if self.logprobs is not None else None,
            prompt_logprobs=self.prompt_logprobs.to_host() if self.prompt_logprobs is not None else None,
            embeddings=self.embeddings.cpu().numpy() if self.embeddings is not None else None,
            chains=self.chains,
            draft_prefill_s=self.draft_prefill_s,
        )


class TorchRunner:
    """A `ModelRunner` of plain torch on one device. Built by `build_runner`.

    On a CPU `launch` computes the step before it returns. Steps are launched from one thread.
    """

    def __init__(
        self,
        config: ModelConfig,
        model: Decoder,
        pages: Tensor,
        attention: AttentionBackend,
        grouping: RowGrouping,
        *,
        weights_digest: str,
        drafter: Drafter | None = None,
        cache: CacheFormat | None = None,
    ) -> None:
        """
        Args:
            drafter: of a speculating engine; then every step has `StepBatch.speculation`.
        """
        self.config = config
        self.weights_digest = weights_digest
        """Of what was loaded; see `LoadedWeights.digest`."""
        self.pages = pages
        self.cache = cache if cache is not None else CacheFormat(pages.dtype)
        self.grouping = grouping
        self._model = model
        self._attention = attention
        self._device = pages.device
        self.testing_only_sampler = self._sampler = Sampler(config.vocab_size, self._device)
        self.testing_only_model = model
        self._previous_ids = torch.zeros(0, dtype=torch.int64, device=self._device)
        self.drafter = drafter
        self._chain_ends = NO_CHAINS

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""
        return self.config.vocab_size

    @property
    def num_pages(self) -> int:
        """Pages in the pool, the padding page included."""
        return self.pages.shape[1]

    @property
    def mixed_sizes(self) -> MixedSizes:
        """See `ModelRunner.mixed_sizes`. A CPU's own were not measured."""
        return MIXED_SIZES

    @torch.inference_mode()
    def launch(self, batch: StepBatch) -> TorchStep:
        """See `ModelRunner.launch`."""
        verify_ids(batch, self.config.vocab_size, len(self._previous_ids))
        if batch.speculation is not None:
            batch = resolve(batch, self._chain_ends)
        if batch.page_copies.size:  # (1)
            self._copy_pages(torch.from_numpy(batch.page_copies.astype(np.int64)).to(self._device))
        sequences = unfold(batch)
        placement = self.grouping.place_tokens(sequences.query_starts, sequences.context_lengths)  # (2)
        captured = None if self.drafter is None else CapturedStates(self.drafter.captured_layers)
        hidden = self._hidden_states(batch, sequences, placement, captured)  # (3), (4)
        token_rows = placement.rows
        logits = self._logits_to_sample(hidden, token_rows[batch.sample_rows])  # (5)
        sampled = self._sampler.sample(logits, batch.sampling)
        self._previous_ids = sampled.token_ids
        logprobs = self._sample_logprobs(logits, sampled, batch)  # (6)
        prompt_logprobs = None
        if batch.prompt_logprob_rows.size:
            scored_rows = token_rows[batch.prompt_logprob_rows]
            prompt_logprobs = score_prompt(self._model, self.grouping, hidden, scored_rows, batch)
        embeddings = None
        if batch.embedding_rows.size:
            embeddings = self._model.final(hidden[torch.from_numpy(token_rows[batch.embedding_rows])])
        chains = None
        if captured is not None:
            chains = self._draft(batch, captured.joined[torch.from_numpy(token_rows)], sampled)  # (8)
        prefill_s = 0.0 if self.drafter is None else self.drafter.prefill_s
        return TorchStep(sampled, logprobs, prompt_logprobs, embeddings, chains, prefill_s)

    def _copy_pages(self, copies: Tensor) -> None:
        copy_pages(self.pages, copies)
        if self.drafter is not None:
            self.drafter.copy_pages(copies)

    def _draft(self, batch: StepBatch, captured: Tensor, sampled: SampledTokens) -> ChainResult:
        assert self.drafter is not None
        assert batch.speculation is not None, "a step of a speculating engine says nothing of it"
        chosen, starts = sampled.token_ids.cpu().numpy(), batch.speculation.chain_starts
        if batch.speculation.tree is not None:
            return self._draft_trees(batch, captured, chosen, batch.speculation.tree.parents)
        num_tokens = count_tokens(batch.token_ids, chosen, batch.sample_rows, starts)
        drafts = self.drafter.draft(batch, captured, chosen, num_tokens)
        self._chain_ends = ChainEnds(num_tokens, chosen[starts[:-1] + num_tokens - 1], drafts)
        return ChainResult(num_tokens, drafts)

    def _draft_trees(self, batch: StepBatch, captured: Tensor, chosen: Int64, parents: Int32) -> ChainResult:
        assert self.drafter is not None
        assert batch.speculation is not None
        firsts, depth = batch.speculation.chain_starts[:-1], depths_of(parents, batch.query_starts).max(initial=0)
        num_tokens, paths = follow_paths(
            batch.token_ids, chosen, batch.sample_rows, batch.speculation.chain_starts, parents, int(depth)
        )
        chains, places = np.nonzero(np.arange(1, depth + 1) < num_tokens[:, None])
        rows = batch.sample_rows[firsts[chains]]
        sources, targets = batch.slots[rows + paths[chains, places + 1]], batch.slots[rows + places + 1]
        moves = torch.from_numpy(sources).to(self._device), torch.from_numpy(targets).to(self._device)
        move_slots(self.pages, *moves)
        last = (firsts + paths[np.arange(len(firsts)), num_tokens - 1]).astype(np.int64)
        drafts, of_drafts = self.drafter.draft_trees(batch, captured, chosen, last, moves)
        self._chain_ends = ChainEnds(num_tokens, chosen[last], drafts, of_drafts)
        return ChainResult(num_tokens, drafts, TreeResult(paths, of_drafts))

    def _hidden_states(
        self, batch: StepBatch, sequences: Sequences, placement: Placement, captured: CapturedStates | None
    ) -> Tensor:
        num_rows = placement.num_rows
        positions, slots = np.zeros(num_rows, np.int64), np.arange(num_rows, dtype=np.int64) % PAGE_SIZE
        # What lies beyond is of answers that have ended, see `SpeculationBatch`.
        positions[placement.rows] = np.minimum(batch.positions, self._model.rotary.num_positions - 1)
        slots[placement.rows] = batch.slots
        plan = self._attention.plan(
            AttentionBatch(
                query_starts=sequences.query_starts,
                context_lengths=sequences.context_lengths,
                page_tables=sequences.page_tables,
                rows=placement.rows,
                num_rows=num_rows,
                slots=slots,
                tails=sequences.tails,
            )
        )
        return self._model.hidden_states(
            self._token_ids(batch, placement),
            torch.from_numpy(positions).to(self._device),
            plan.attend,
            self.grouping,
            captured,
        )

    def _token_ids(self, batch: StepBatch, placement: Placement) -> Tensor:
        known = np.zeros(placement.num_rows, np.int64)
        known[placement.rows] = batch.token_ids
        from_previous = np.flatnonzero(batch.previous_rows >= 0)
        known[placement.rows[from_previous]] = 0
        token_ids = torch.from_numpy(known).to(self._device)
        if from_previous.size:
            rows = torch.from_numpy(placement.rows[from_previous]).to(self._device)
            samples = torch.from_numpy(batch.previous_rows[from_previous].astype(np.int64)).to(self._device)
            token_ids[rows] = self._previous_ids[samples]
        return token_ids

    def _logits_to_sample(self, hidden: Tensor, hidden_rows: Int64) -> Tensor:
        if not hidden_rows.size:
            return torch.empty(0, self.config.vocab_size, device=self._device)
        return sample_logits(self._model, self.grouping, hidden, hidden_rows)

    def _sample_logprobs(self, logits: Tensor, sampled: SampledTokens, batch: StepBatch) -> DeviceLogprobs | None:
        counts = batch.sampling.num_logprobs
        asking = np.flatnonzero(counts >= 0)
        if not asking.size:
            return None
        rows = torch.from_numpy(asking).to(self._device)
        given = logprobs_of(logits[rows], sampled.token_ids[rows], int(counts.max()))
        return given.spread(rows, len(counts))
