"""Metrics that others wrote or said: what is odd about them costs neither the scrape nor a stream."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from appliance.gateway import metrics as module
from appliance.gateway.instruments import Snapshot, encode_snapshot, write_snapshot
from appliance.gateway.metrics import Metrics


@pytest.mark.parametrize(
    ("said", "shown"),
    [(float("nan"), "NaN"), (float("inf"), "+Inf"), (float("-inf"), "-Inf"), (0.25, "0.25"), (3, "3")],
)
def test_a_number_that_is_none_is_shown_as_such(said: float, shown: str) -> None:
    """An engine may say anything: Prometheus knows these words, and the other metrics are shown."""
    metrics = Metrics()
    metrics.spec_accept_rate.set(said, model_name="m", engine="0")
    metrics.audit_tree_size.set(7)
    text = metrics.render()
    assert f'casemate_spec_accept_rate{{model_name="m",engine="0"}} {shown}\n' in text
    assert "casemate_audit_tree_size 7\n" in text


def test_what_an_earlier_release_left_in_another_shape_is_passed_over(tmp_path: Path) -> None:
    """A worker that is configured no more leaves its file: other labels and other buckets count for nothing."""
    name, histogram = "casemate_num_requests_total", "casemate_e2e_request_latency_seconds"
    values: dict[str, list[tuple[tuple[str, ...], list[float]]]] = {
        name: [(("m", "one too many"), [1.0]), (("m",), [2.0, 3.0]), (("m",), [4.0])],
        histogram: [(("m",), [1.0, 2.0, 3.0])],
    }
    write_snapshot(tmp_path / "gateway-7.msgpack", encode_snapshot(Snapshot(time.time(), values)))
    lines = Metrics(tmp_path, instance=0).render().splitlines()
    assert [line for line in lines if line.startswith((name, histogram))] == [f'{name}{{model_name="m"}} 4']
    assert [line for line in Metrics(tmp_path, instance=7).render().splitlines() if line.startswith(histogram)] == []


async def test_a_disk_that_does_not_answer_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop goes on while a worker's values are written; they are those of the moment that it was asked for."""
    writes, may_write = threading.Event(), threading.Event()

    def write(path: Path, encoded: bytes) -> None:
        writes.set()
        assert may_write.wait(60)
        write_snapshot(path, encoded)

    monkeypatch.setattr(module, "write_snapshot", write)
    metrics = Metrics(tmp_path, instance=1)
    metrics.num_requests_total.add(1, model_name="m")
    saving = asyncio.create_task(metrics.save_beside())
    while not writes.is_set():  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0)
    metrics.num_requests_total.add(1, model_name="m")
    assert not saving.done()
    may_write.set()
    await saving
    assert 'casemate_num_requests_total{model_name="m"} 1\n' in Metrics(tmp_path, instance=0).render()


def test_what_is_counted_by_values_is_what_is_counted_by_names() -> None:
    """Both ways of counting reach one row, whichever comes first; a value too few is a mistake of ours."""
    metrics = Metrics()
    metrics.http_responses_total.of("GET", "/ready", "200")(1)
    metrics.http_responses_total.add(2, method="GET", path="/ready", status="200")
    metrics.http_responses_total.of("GET", "/ready", "200")(1)
    metrics.http_request_duration_seconds.observe(0.5, path="/ready")
    metrics.http_request_duration_seconds.of("/ready")(700.0)
    metrics.http_requests_active.of()(1)
    metrics.http_requests_active.of()(-1)
    lines = metrics.render().splitlines()
    assert 'casemate_http_responses_total{method="GET",path="/ready",status="200"} 4' in lines
    assert 'casemate_http_request_duration_seconds_bucket{path="/ready",le="0.5"} 1' in lines
    assert 'casemate_http_request_duration_seconds_bucket{path="/ready",le="+Inf"} 2' in lines
    assert 'casemate_http_request_duration_seconds_sum{path="/ready"} 700.5' in lines
    assert "casemate_http_requests_active 0" in lines
    with pytest.raises(ValueError, match="shorter"):
        metrics.http_responses_total.of("GET", "/ready")
