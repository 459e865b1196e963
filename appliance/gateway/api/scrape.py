"""`GET /metrics`, in Prometheus' text form."""

from collections.abc import Callable, Sequence

from appliance.gateway.exchange import Exchange
from appliance.gateway.flow.desk import Desk
from appliance.gateway.peers.engines import EnginePeer
from appliance.messages.control import ProcessState

MEDIA = b"text/plain; version=0.0.4; charset=utf-8"


class ScrapeEndpoint:
    """Brings what the processes said up to date, then shows everything."""

    def __init__(self, desk: Desk, states: Callable[[], Sequence[ProcessState]]) -> None:
        self._desk = desk
        self._states = states

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one scrape."""
        self._refresh()
        await exchange.respond_bytes(200, self._desk.metrics.render().encode(), MEDIA)

    def _refresh(self) -> None:
        metrics = self._desk.metrics
        for instrument in metrics.said:
            instrument.rows.clear()
        for peer in self._desk.engines:
            self._show_engine(peer)
        auditor = self._desk.auditor.status
        metrics.audit_can_append.set(float(auditor is not None and auditor.can_append))
        if auditor is not None:
            metrics.audit_tree_size.set(auditor.tree_size)
            metrics.audit_checkpoint_size.set(auditor.checkpoint_size)
            metrics.audit_cosigned_size.set(auditor.cosigned_size)
            metrics.audit_cosigned_age_seconds.set(auditor.cosigned_age_s)
            metrics.audit_quorums_missed_total.set(auditor.num_quorums_missed)
            metrics.audit_free_bytes.set(auditor.free_bytes)
            metrics.audit_alarms.set(len(auditor.alarms))
            metrics.audit_count_differences_total.set(auditor.num_differences)
        for state in self._states():
            labels = {"role": state.role, "instance": str(state.instance)}
            metrics.process_ready.set(float(state.state == "ready"), **labels)
            metrics.process_restarts_total.set(state.restarts, **labels)

    def _show_engine(self, peer: EnginePeer) -> None:
        status = peer.status
        if status is None:
            return
        metrics = self._desk.metrics
        labels = {"model_name": peer.facts.name, "engine": str(peer.instance)}
        held = status.num_pages - status.num_free_pages - status.num_evictable_pages
        metrics.num_running_reqs.set(status.num_running, **labels)
        metrics.num_queue_reqs.set(status.num_waiting, **labels)
        metrics.num_awaiting_ticket_reqs.set(status.num_awaiting_ticket, **labels)
        metrics.token_usage.set(held / status.num_pages if status.num_pages else 0.0, **labels)
        metrics.cache_hit_rate.set(
            status.cached_tokens / status.prompt_tokens if status.prompt_tokens else 0.0, **labels
        )
        metrics.prompt_tokens_total.set(status.prompt_tokens, **labels)
        metrics.generation_tokens_total.set(status.generated_tokens, **labels)
        metrics.cached_tokens_total.set(status.cached_tokens, **labels)
        metrics.num_retracted_requests_total.set(status.num_retractions, **labels)
        metrics.fwd_occupancy.set(100 * status.occupancy, **labels)
        metrics.forward_execution_seconds_total.set(status.busy_s, **labels)
        metrics.cuda_graph_passes_total.set(status.num_graph_steps, **labels, mode="cuda_graph")
        metrics.cuda_graph_passes_total.set(status.num_steps - status.num_graph_steps, **labels, mode="none")
        metrics.is_cuda_graph.set(float(status.captured_size > 0), **labels)
        metrics.cuda_graph_batch_size.set(status.captured_size, **labels)
        metrics.spec_accept_length.set(1 + status.num_accepted / max(1, status.num_verified), **labels)
        metrics.spec_accept_rate.set(status.num_accepted / max(1, status.num_proposed), **labels)
        metrics.spec_verify_total.set(status.num_verified, **labels)
        metrics.spec_draft_tokens_total.set(status.num_proposed, **labels)
        metrics.spec_accepted_tokens_total.set(status.num_accepted, **labels)
        metrics.kv_cache_unscaled.set(float(peer.facts.has_unscaled_cache), **labels)
        metrics.num_ranks.set(len(peer.facts.ranks), **labels)
        for rank in peer.facts.ranks:
            for part, size_bytes in rank.memory.items():
                metrics.gpu_memory_bytes.set(size_bytes, **labels, rank=str(rank.rank), gpu=rank.gpu, part=part)
        metrics.spec_num_steps.set(status.num_draft_steps, **labels)
        metrics.spec_draft_prefill_seconds_total.set(status.draft_prefill_s, **labels)
        metrics.spec_draft_prefill_tokens_total.set(status.num_draft_prefill_tokens, **labels, mode="with_prompt")
        metrics.spec_draft_prefill_tokens_total.set(status.num_late_entries, **labels, mode="late")
        metrics.spec_draft_prefill_tokens_total.set(status.num_lost_entries, **labels, mode="lost")
        metrics.last_token_age_seconds.set(status.last_token_age_ms / 1000, **labels)
