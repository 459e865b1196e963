"""Every metric of the gateway. The stems are SGLang's, so that dashboards need a new prefix only; `docs/metrics.md` lists all.

What the engine and the auditor count themselves is shown as they last said; what a worker sees of its own clients is added
up over all workers (`instruments`).
"""

import time
from collections.abc import Iterable
from pathlib import Path

from appliance.gateway.instruments import (
    Instrument,
    Kind,
    LabelValues,
    Snapshot,
    load_snapshot,
    render,
    write_snapshot,
)

FIRST_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
INTER_TOKEN_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.04,
    0.06,
    0.08,
    0.1,
    0.2,
    0.4,
    0.75,
    1,
    2.5,
)
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
STALE_AFTER_S = 10.0
"""Gauges of a worker that has written nothing for so long do not count: it is gone."""


class Metrics:
    """One worker's instruments, and the view over all workers."""

    def __init__(self, directory: Path | None = None, instance: int = 0) -> None:
        self._directory = directory
        self._instance = instance
        self._local: list[Instrument] = []
        self._shared: list[Instrument] = []
        model = ["model_name"]

        # Of this worker's own clients; summed over workers.
        self.num_requests_total = self._sum(
            "counter", "num_requests_total", "Generations accepted: one for each prompt.", model
        )
        self.num_aborted_requests_total = self._sum(
            "counter",
            "num_aborted_requests_total",
            "Generations that did not end by stop or length, by reason.",
            [*model, "reason"],
        )
        self.time_to_first_token_seconds = self._sum(
            "histogram",
            "time_to_first_token_seconds",
            "From the request's last byte to its first token.",
            model,
            FIRST_TOKEN_BUCKETS,
        )
        self.inter_token_latency_seconds = self._sum(
            "histogram", "inter_token_latency_seconds", "Between two tokens of one choice.", model, INTER_TOKEN_BUCKETS
        )
        self.e2e_request_latency_seconds = self._sum(
            "histogram",
            "e2e_request_latency_seconds",
            "From the request's last byte to its end.",
            model,
            DURATION_BUCKETS,
        )
        self.http_requests_active = self._sum("gauge", "http_requests_active", "HTTP requests in progress.", [])
        self.http_responses_total = self._sum(
            "counter", "http_responses_total", "HTTP responses.", ["method", "path", "status"]
        )
        self.http_request_duration_seconds = self._sum(
            "histogram", "http_request_duration_seconds", "Length of an HTTP exchange.", ["path"], DURATION_BUCKETS
        )

        # As the engine last said.
        engine = ["model_name", "engine"]
        self.num_running_reqs = self._say(
            "gauge", "num_running_reqs", "Requests in the engine's running batch.", engine
        )
        self.num_queue_reqs = self._say("gauge", "num_queue_reqs", "Requests waiting in the engine.", engine)
        self.token_usage = self._say(
            "gauge", "token_usage", "Share of KV pages that running requests hold, 0 to 1.", engine
        )
        self.cache_hit_rate = self._say(
            "gauge", "cache_hit_rate", "Share of all prompt tokens found in the prefix cache.", engine
        )
        self.prompt_tokens_total = self._say("counter", "prompt_tokens_total", "Prompt tokens taken in.", engine)
        self.generation_tokens_total = self._say(
            "counter", "generation_tokens_total", "Output tokens computed.", engine
        )
        self.cached_tokens_total = self._say(
            "counter", "cached_tokens_total", "Prompt tokens found in the prefix cache.", engine
        )
        self.num_retracted_requests_total = self._say(
            "counter", "num_retracted_requests_total", "Requests put back for want of memory.", engine
        )
        self.fwd_occupancy = self._say(
            "gauge",
            "fwd_occupancy",
            "Share of the last moments in which the device was busy with steps, percent.",
            engine,
        )
        self.forward_execution_seconds_total = self._say(
            "counter", "forward_execution_seconds_total", "Time that steps took on the device.", engine
        )
        self.cuda_graph_passes_total = self._say(
            "counter",
            "cuda_graph_passes_total",
            "Steps by whether they ran in a CUDA graph: mode cuda_graph or none.",
            [*engine, "mode"],
        )
        self.is_cuda_graph = self._say("gauge", "is_cuda_graph", "1 if the last step ran in a CUDA graph.", engine)
        self.cuda_graph_batch_size = self._say(
            "gauge", "cuda_graph_batch_size", "Rows of the CUDA graph of the last step; 0 without one.", engine
        )
        self.spec_accept_length = self._say(
            "gauge",
            "spec_accept_length",
            "Tokens that a pass over drafts gave on average, the model's own included, since the engine's start.",
            engine,
        )
        self.spec_accept_rate = self._say(
            "gauge", "spec_accept_rate", "Share of all drafts that were accepted, since the engine's start.", engine
        )
        self.spec_verify_total = self._say(
            "counter", "spec_verify_total", "Passes of the model over drafts of one answer.", engine
        )
        self.spec_draft_tokens_total = self._say("counter", "spec_draft_tokens_total", "Drafts proposed.", engine)
        self.spec_accepted_tokens_total = self._say("counter", "spec_accepted_tokens_total", "Drafts accepted.", engine)
        self.kv_cache_unscaled = self._say(
            "gauge", "kv_cache_unscaled", "1 if the KV cache is e4m3 without scales of its own.", engine
        )
        self.spec_num_steps = self._say(
            "gauge", "spec_num_steps", "Drafts made for each answer in the last step; 0: none.", engine
        )
        self.last_token_age_seconds = self._say(
            "gauge", "last_token_age_seconds", "Since a token last came out of the engine.", engine
        )

        # As auditor and supervisor last said.
        self.audit_can_append = self._say("gauge", "audit_can_append", "1 if the log takes records.", [])
        self.audit_tree_size = self._say("gauge", "audit_tree_size", "Records in the log.", [])
        self.audit_checkpoint_size = self._say(
            "gauge", "audit_checkpoint_size", "Records under the last signed checkpoint.", []
        )
        self.audit_cosigned_size = self._say(
            "gauge", "audit_cosigned_size", "Records that a quorum of witnesses vouches for.", []
        )
        self.audit_cosigned_age_seconds = self._say(
            "gauge", "audit_cosigned_age_seconds", "Since the quorum's last word; -1 where there was none.", []
        )
        self.audit_quorums_missed_total = self._say(
            "counter", "audit_quorums_missed_total", "Rounds of cosigning that reached no quorum of witnesses.", []
        )
        self.audit_free_bytes = self._say("gauge", "audit_free_bytes", "Space on the log's disk.", [])
        self.audit_alarms = self._say("gauge", "audit_alarms", "What a person should look at; /ready says what.", [])
        self.audit_count_differences_total = self._say(
            "counter", "audit_count_differences_total", "Differences that reconciliations have found.", []
        )
        self.process_ready = self._say("gauge", "process_ready", "1 if the process is ready.", ["role", "instance"])
        self.process_restarts_total = self._say("counter", "process_restarts_total", "Restarts.", ["role", "instance"])
        self._resume()

    @property
    def instruments(self) -> list[Instrument]:
        """All of them, in the order of their display."""
        return [*self._local, *self._shared]

    @property
    def said(self) -> list[Instrument]:
        """Those that show what other processes last said."""
        return self._shared

    def _sum(
        self, kind: Kind, name: str, description: str, labels: list[str], buckets: Iterable[float] = ()
    ) -> Instrument:
        self._local.append(Instrument(kind, f"casemate_{name}", description, labels, tuple(buckets)))
        return self._local[-1]

    def _say(self, kind: Kind, name: str, description: str, labels: list[str]) -> Instrument:
        self._shared.append(Instrument(kind, f"casemate_{name}", description, labels))
        return self._shared[-1]

    def save(self) -> None:
        """Write this worker's values where the others see them. Called every second or so; a full disk loses metrics only."""
        if self._directory is None:
            return
        values = {instrument.name: list(instrument.rows.items()) for instrument in self._local}
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_snapshot(self._path(self._instance), Snapshot(time.time(), values))
        except OSError:
            return

    def render(self) -> str:
        """The text for a scrape: this worker's values as they are now, those of the others as they last wrote them."""
        lines: list[str] = []
        others = self._others()
        for instrument in self._local:
            rows = {key: list(row) for key, row in instrument.rows.items()}
            for snapshot in others:
                if instrument.kind == "gauge" and time.time() - snapshot.written_at > STALE_AFTER_S:
                    continue
                for key, row in snapshot.values.get(instrument.name, []):
                    _add(rows, key, row)
            lines += render(instrument, sorted(rows.items()))
        for instrument in self._shared:
            lines += render(instrument, sorted(instrument.rows.items()))
        return "\n".join(lines) + "\n"

    def _resume(self) -> None:
        snapshot = load_snapshot(self._path(self._instance)) if self._directory is not None else None
        for instrument in self._local if snapshot is not None else ():
            assert snapshot is not None
            if instrument.kind == "gauge":
                continue
            width = len(instrument.buckets) + 3 if instrument.kind == "histogram" else 1
            rows = snapshot.values.get(instrument.name, [])
            instrument.rows = {
                key: row for key, row in rows if len(key) == len(instrument.labels) and len(row) == width
            }

    def _others(self) -> list[Snapshot]:
        if self._directory is None:
            return []
        own = self._path(self._instance)
        found = (load_snapshot(path) for path in sorted(self._directory.glob("gateway-*.msgpack")) if path != own)
        return [snapshot for snapshot in found if snapshot is not None]

    def _path(self, instance: int) -> Path:
        assert self._directory is not None
        return self._directory / f"gateway-{instance}.msgpack"


def _add(rows: dict[LabelValues, list[float]], key: LabelValues, row: list[float]) -> None:
    present = rows.setdefault(key, [0.0] * len(row))
    if len(present) == len(row):
        rows[key] = [left + right for left, right in zip(present, row, strict=True)]
