"""Every metric of the gateway. The stems are SGLang's, so that dashboards need a new prefix only; `docs/metrics.md` lists all.

What the engine and the auditor count themselves is shown as they last said; what a worker sees of its own clients is added
up over all workers (`instruments`).
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from appliance.gateway.instruments import (
    Instrument,
    Kind,
    LabelValues,
    Snapshot,
    encode_snapshot,
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
MODEL, ENGINE, PROCESS = ("model_name",), ("model_name", "engine"), ("role", "instance")
STALE_AFTER_S = 10.0
"""Gauges of a worker that has written nothing for so long do not count: it is gone."""


class Declared:
    """An instrument as the class below declares it, named as it is there. Every `Metrics` has one of its own in its place."""

    def __init__(
        self, is_said: bool, kind: Kind, description: str, labels: tuple[str, ...], buckets: Iterable[float]
    ) -> None:
        self.is_said = is_said
        self._name = ""
        self._kind, self._description, self._labels, self._buckets = kind, description, labels, tuple(buckets)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> Instrument:
        """What the attribute's type is; never called, as an instance's own attribute goes before it."""
        raise AttributeError(f"{self._name} belongs to an instance")

    def put_into(self, instance: object) -> Instrument:
        """Make the instrument, and the instance's attribute for it."""
        made = Instrument(self._kind, f"casemate_{self._name}", self._description, list(self._labels), self._buckets)
        setattr(instance, self._name, made)
        return made


def counted(kind: Kind, description: str, labels: tuple[str, ...] = (), buckets: Iterable[float] = ()) -> Declared:
    """What a worker sees of its own clients; summed over workers."""
    return Declared(False, kind, description, labels, buckets)


def told(kind: Kind, description: str, labels: tuple[str, ...] = ()) -> Declared:
    """What another process last said; every worker shows the same."""
    return Declared(True, kind, description, labels, ())


class Metrics:
    """One worker's instruments, and the view over all workers."""

    # Of this worker's own clients; summed over workers.
    num_requests_total = counted("counter", "Generations accepted: one for each prompt.", MODEL)
    num_aborted_requests_total = counted(
        "counter", "Generations that did not end by stop or length, by reason.", (*MODEL, "reason")
    )
    time_to_first_token_seconds = counted(
        "histogram", "From the request's last byte to its first token.", MODEL, FIRST_TOKEN_BUCKETS
    )
    inter_token_latency_seconds = counted("histogram", "Between two tokens of one choice.", MODEL, INTER_TOKEN_BUCKETS)
    e2e_request_latency_seconds = counted(
        "histogram", "From the request's last byte to its end.", MODEL, DURATION_BUCKETS
    )
    http_requests_active = counted("gauge", "HTTP requests in progress.")
    http_responses_total = counted("counter", "HTTP responses.", ("method", "path", "status"))
    http_request_duration_seconds = counted("histogram", "Length of an HTTP exchange.", ("path",), DURATION_BUCKETS)

    # As the engine last said.
    num_running_reqs = told("gauge", "Requests in the engine's running batch.", ENGINE)
    num_queue_reqs = told("gauge", "Requests waiting in the engine.", ENGINE)
    num_awaiting_ticket_reqs = told("gauge", "Requests whose intents are not known to be durable.", ENGINE)
    token_usage = told("gauge", "Share of KV pages that running requests hold, 0 to 1.", ENGINE)
    cache_hit_rate = told("gauge", "Share of all prompt tokens found in the prefix cache.", ENGINE)
    prompt_tokens_total = told("counter", "Prompt tokens taken in.", ENGINE)
    generation_tokens_total = told("counter", "Output tokens computed.", ENGINE)
    cached_tokens_total = told("counter", "Prompt tokens found in the prefix cache.", ENGINE)
    num_retracted_requests_total = told("counter", "Requests put back for want of memory.", ENGINE)
    fwd_occupancy = told("gauge", "Share of the last moments in which the device was busy with steps, percent.", ENGINE)
    forward_execution_seconds_total = told("counter", "Time that steps took on the device.", ENGINE)
    cuda_graph_passes_total = told(
        "counter", "Steps by whether they ran in a CUDA graph: mode cuda_graph or none.", (*ENGINE, "mode")
    )
    is_cuda_graph = told("gauge", "1 if the last step ran in a CUDA graph.", ENGINE)
    cuda_graph_batch_size = told("gauge", "Rows of the CUDA graph of the last step; 0 without one.", ENGINE)
    spec_accept_length = told(
        "gauge",
        "Tokens that a pass over drafts gave on average, the model's own included, since the engine's start.",
        ENGINE,
    )
    spec_accept_rate = told("gauge", "Share of all drafts that were accepted, since the engine's start.", ENGINE)
    spec_verify_total = told("counter", "Passes of the model over drafts of one answer.", ENGINE)
    spec_draft_tokens_total = told("counter", "Drafts proposed.", ENGINE)
    spec_accepted_tokens_total = told("counter", "Drafts accepted.", ENGINE)
    kv_cache_unscaled = told("gauge", "1 if the KV cache is e4m3 without scales of its own.", ENGINE)
    num_ranks = told("gauge", "Processes that share the engine's model.", ENGINE)
    gpu_memory_bytes = told(
        "gauge",
        "Memory of each rank's GPU by use, when the engine was ready: part weights, steps, kv_cache, outside or left.",
        (*ENGINE, "rank", "gpu", "part"),
    )
    spec_num_steps = told("gauge", "Drafts made for each answer in the last step; 0: none.", ENGINE)
    spec_draft_prefill_seconds_total = told("counter", "Time of the draft head's own prefill.", ENGINE)
    spec_draft_prefill_tokens_total = told(
        "counter", "Tokens by when the draft head read them: mode with_prompt, late or lost.", (*ENGINE, "mode")
    )
    last_token_age_seconds = told("gauge", "Since a token last came out of the engine.", ENGINE)

    # As auditor and supervisor last said.
    audit_can_append = told("gauge", "1 if the log takes records.")
    audit_tree_size = told("gauge", "Records in the log.")
    audit_checkpoint_size = told("gauge", "Records under the last signed checkpoint.")
    audit_cosigned_size = told("gauge", "Records that a quorum of witnesses vouches for.")
    audit_cosigned_age_seconds = told("gauge", "Since the quorum's last word; -1 where there was none.")
    audit_quorums_missed_total = told("counter", "Rounds of cosigning that reached no quorum of witnesses.")
    audit_free_bytes = told("gauge", "Space on the log's disk.")
    audit_alarms = told("gauge", "What a person should look at; /ready says what.")
    audit_count_differences_total = told("counter", "Differences that reconciliations have found.")
    process_ready = told("gauge", "1 if the process is ready.", PROCESS)
    process_restarts_total = told("counter", "Restarts.", PROCESS)

    def __init__(self, directory: Path | None = None, instance: int = 0) -> None:
        self._directory = directory
        self._instance = instance
        self._writing = threading.Lock()
        self._local: list[Instrument] = []
        self._shared: list[Instrument] = []
        for declared in vars(Metrics).values():
            if isinstance(declared, Declared):
                (self._shared if declared.is_said else self._local).append(declared.put_into(self))
        self._resume()

    @property
    def instruments(self) -> list[Instrument]:
        """All of them, in the order of their display."""
        return [*self._local, *self._shared]

    @property
    def said(self) -> list[Instrument]:
        """Those that show what other processes last said."""
        return self._shared

    def save(self) -> None:
        """Write this worker's values where the others see them. A full disk loses metrics only."""
        self._write(self._encode())

    async def save_beside(self) -> None:
        """The same, of the values as they are now; the event loop waits for no disk. Called every second or so."""
        await asyncio.to_thread(self._write, self._encode())

    def _encode(self) -> bytes:
        values = {instrument.name: list(instrument.rows.items()) for instrument in self._local}
        return encode_snapshot(Snapshot(time.time(), values))

    def _write(self, encoded: bytes) -> None:
        if self._directory is None:
            return
        with self._writing, contextlib.suppress(OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_snapshot(self._path(self._instance), encoded)

    def render(self) -> str:
        """The text for a scrape: this worker's values as they are now, those of the others as they last wrote them."""
        lines: list[str] = []
        others = self._others()
        for instrument in self._local:
            rows = {key: list(row) for key, row in instrument.rows.items()}
            for snapshot in others:
                if instrument.kind == "gauge" and time.time() - snapshot.written_at > STALE_AFTER_S:
                    continue
                for key, row in instrument.rows_of(snapshot):
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
            instrument.rows = dict(instrument.rows_of(snapshot))

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
    present = rows.get(key)
    rows[key] = row if present is None else [left + right for left, right in zip(present, row, strict=True)]
