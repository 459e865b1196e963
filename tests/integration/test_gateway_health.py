"""Health and readiness say the truth, metrics are shown to those who may see them, receipts to those they belong to."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.gateway.api import health
from appliance.gateway.metrics import Metrics
from appliance.messages.control import ROLES, ProcessState
from tests.support.controls import control
from tests.support.gateway import TOKEN, Gateway, running_gateway
from tests.support.model_folders import MODEL, write_byte_level_model
from tests.support.waiting import GIVE_UP_S, until
from tests.support.wire import Response, exchange

BEARER = f"Authorization: Bearer {TOKEN}"
JSON = "Content-Type: application/json"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_byte_level_model(tmp_path_factory.mktemp("health-model"))


@pytest.fixture
async def gateway(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """Whose peers are believed for long: a busy machine may keep all of this process from its next word for a second."""
    monkeypatch.setattr(health, "FRESH_S", 3600.0)
    async with running_gateway(folder, metrics_dir=tmp_path / "metrics", max_token_age_ms=5000) as running:
        yield running


async def get(gateway: Gateway, path: str, *headers: str) -> tuple[int, Any]:
    response = await exchange(gateway.port, "GET", path, headers=headers)
    return response.status, json.loads(response.body)


async def get_refused(gateway: Gateway, path: str, *headers: str) -> Any:
    """The body of the first answer that is 503: peers tell how they are some times a second."""
    async with asyncio.timeout(GIVE_UP_S):
        while (answer := await get(gateway, path, *headers))[0] != 503:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)
    return answer[1]


async def ask(gateway: Gateway, **changes: Any) -> Response:
    body = json.dumps({"model": MODEL, "prompt": "hi", **changes}).encode()
    return await exchange(gateway.port, "POST", "/v1/completions", headers=(BEARER, JSON), body=body)


async def test_all_is_well(gateway: Gateway) -> None:
    """Both say yes, and the public hears nothing but that."""
    assert await get(gateway, "/health") == (200, {"status": "ok", "down": []})
    assert await get(gateway, "/ready") == (200, {"status": "ready"})
    assert await get(gateway, "/ready", "Authorization: Bearer models-only") == (200, {"status": "ready"})


async def test_details_are_for_holders_of_the_scope(gateway: Gateway) -> None:
    """Mode, what it lacks, that all runs as one user, and every process."""
    status, body = await get(gateway, "/ready", BEARER)
    assert status == 200
    assert (body["mode"], body["single_user"], body["reasons"]) == ("development", True, [])
    assert body["lacks"] == [{"name": "confinement", "consequence": "Processes run as one user."}]
    assert {process["role"] for process in body["processes"]} == set(ROLES) - {"supervisor"}
    assert body["engines"][0]["model"] == MODEL


async def test_a_bad_token_is_refused_also_where_none_is_needed(gateway: Gateway) -> None:
    """Whoever shows a token wants to be somebody; a token that does not hold is not ignored."""
    status, _ = await get(gateway, "/ready", "Authorization: Bearer wrong")
    assert status == 401


@pytest.mark.parametrize("role", ["auditor", "policy", "engine"])
async def test_a_lost_peer_turns_health_at_once(gateway: Gateway, role: str) -> None:
    """The link's end is enough, whatever was said before; the body names who is down; readiness follows; both recover."""
    link = {"auditor": gateway.auditor, "policy": gateway.policy, "engine": gateway.engine}[role].link
    assert link is not None
    link.close()
    body = await get_refused(gateway, "/health")
    assert role in " ".join(body["down"])
    assert (await get(gateway, "/ready"))[0] == 503
    getattr(gateway, f"connect_{role}")()
    await until(lambda: gateway.is_connected)
    assert (await get(gateway, "/health"))[0] == 200
    assert (await get(gateway, "/ready"))[0] == 200


async def test_a_process_that_the_supervisor_restarts_is_down(gateway: Gateway) -> None:
    """Also the authority, to which this worker has no link."""
    gateway.states = [*gateway.states[:-1], ProcessState("authority", 0, "restarting", 1)]
    status, body = await get(gateway, "/health")
    assert (status, body["down"]) == (503, ["authority/0"])


async def test_a_silent_engine_is_not_ready(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that hangs sends no status: a second later that is a no."""
    monkeypatch.setattr(health, "FRESH_S", 1.0)
    gateway.engine.says_status = False
    body = await get_refused(gateway, "/ready", BEARER)
    assert body["reasons"] == ["engine/0 is silent"]
    assert (await get(gateway, "/health"))[0] == 200


async def test_an_engine_without_a_token_lately_is_not_ready(gateway: Gateway) -> None:
    """It may be there and talk; what counts is that tokens come out."""
    gateway.engine.last_token_age_ms = 6000
    body = await get_refused(gateway, "/ready", BEARER)
    assert "no token came out of engine/0" in body["reasons"][0]


@control("3.3.4", "AU-5", "SI-4(2)")
async def test_a_log_that_takes_no_records_is_not_ready(gateway: Gateway) -> None:
    """A full disk at the auditor, in its own words."""
    gateway.auditor.can_append = False
    body = await get_refused(gateway, "/ready", BEARER)
    assert body["reasons"] == ["the log takes no records: disk full"]


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


async def scrape(gateway: Gateway) -> list[tuple[str, dict[str, str], float]]:
    response = await exchange(gateway.port, "GET", "/metrics", headers=(BEARER,))
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return list(samples(response.body.decode()))


def value(found: list[tuple[str, dict[str, str], float]], name: str, **labels: str) -> float:
    (match,) = [number for key, has, number in found if key == name and labels.items() <= has.items()]
    return match


async def test_metrics_count_what_happened(gateway: Gateway) -> None:
    """Prometheus' own parser reads them; engine, auditor and clients are in them."""
    gateway.says("hello")
    assert (await ask(gateway)).status == 200
    assert (await ask(gateway, model="nothing")).status == 404
    await until(lambda: getattr(gateway.worker.desk.auditor.status, "tree_size", 0) == 2)
    found = await scrape(gateway)
    assert value(found, "casemate_num_requests_total", model_name=MODEL) == 1
    assert value(found, "casemate_time_to_first_token_seconds_count", model_name=MODEL) == 1
    assert value(found, "casemate_inter_token_latency_seconds_count", model_name=MODEL) == 5
    assert value(found, "casemate_e2e_request_latency_seconds_count", model_name=MODEL) == 1
    assert value(found, "casemate_http_responses_total", path="/v1/completions", status="404") == 1
    assert value(found, "casemate_num_running_reqs", model_name=MODEL, engine="0") == 1
    assert value(found, "casemate_num_awaiting_ticket_reqs", model_name=MODEL, engine="0") == 3
    assert value(found, "casemate_token_usage", engine="0") == 0.25
    assert value(found, "casemate_cache_hit_rate", engine="0") == 0.25
    assert value(found, "casemate_generation_tokens_total", engine="0") == 30
    assert value(found, "casemate_fwd_occupancy", engine="0") == 75
    assert value(found, "casemate_forward_execution_seconds_total", engine="0") == 12.5
    assert value(found, "casemate_cuda_graph_passes_total", engine="0", mode="cuda_graph") == 40
    assert value(found, "casemate_cuda_graph_passes_total", engine="0", mode="none") == 10
    assert value(found, "casemate_is_cuda_graph", engine="0") == 1
    assert value(found, "casemate_cuda_graph_batch_size", engine="0") == 64
    assert value(found, "casemate_spec_accept_length", engine="0") == 2.5
    assert value(found, "casemate_spec_accept_rate", engine="0") == 0.5
    assert value(found, "casemate_spec_verify_total", engine="0") == 20
    assert value(found, "casemate_spec_draft_tokens_total", engine="0") == 60
    assert value(found, "casemate_spec_accepted_tokens_total", engine="0") == 30
    assert value(found, "casemate_spec_num_steps", engine="0") == 3
    assert value(found, "casemate_spec_draft_prefill_seconds_total", engine="0") == 1.5
    assert value(found, "casemate_spec_draft_prefill_tokens_total", engine="0", mode="with_prompt") == 700
    assert value(found, "casemate_spec_draft_prefill_tokens_total", engine="0", mode="late") == 80
    assert value(found, "casemate_spec_draft_prefill_tokens_total", engine="0", mode="lost") == 9
    assert value(found, "casemate_kv_cache_unscaled", engine="0") == 1
    assert value(found, "casemate_num_ranks", engine="0") == 2
    assert value(found, "casemate_gpu_memory_bytes", engine="0", rank="1", gpu="GPU-1", part="left") == 2
    assert value(found, "casemate_gpu_memory_bytes", engine="0", rank="0", gpu="GPU-0", part="weights") == 3 << 30
    assert value(found, "casemate_audit_tree_size") == 2
    assert value(found, "casemate_process_ready", role="engine", instance="0") == 1


async def test_metrics_of_all_workers_are_added_up(gateway: Gateway, tmp_path: Path) -> None:
    """A scrape reaches one worker and tells of all; a worker that starts again goes on counting."""
    assert (await ask(gateway)).status == 200
    other = Metrics(tmp_path / "metrics", instance=1)
    other.num_requests_total.add(2, model_name=MODEL)
    other.time_to_first_token_seconds.observe(0.5, model_name=MODEL)
    other.save()
    reborn = Metrics(tmp_path / "metrics", instance=1)
    reborn.num_requests_total.add(1, model_name=MODEL)
    reborn.save()
    found = await scrape(gateway)
    assert value(found, "casemate_num_requests_total", model_name=MODEL) == 4
    assert value(found, "casemate_time_to_first_token_seconds_count", model_name=MODEL) == 2


async def test_receipts_belong_to_who_asked(gateway: Gateway) -> None:
    """A client gets its own, by the id of the answer; others and unknown ids get 404 alike."""
    answer = json.loads((await ask(gateway)).body)
    status, receipt = await get(gateway, f"/audit/request/{answer['id']}", BEARER)
    assert status == 200
    assert set(receipt) == {"intent", "outcome", "log_vkey"}
    assert (receipt["intent"]["index"], receipt["outcome"]["index"]) == (0, 1)
    foreign = await get(gateway, f"/audit/request/{answer['id']}", "Authorization: Bearer other-client")
    unknown = await get(gateway, "/audit/request/cmpl-unknown", BEARER)
    assert foreign[0] == unknown[0] == 404
    assert foreign[1]["error"]["code"] == "receipt_not_found"


async def test_several_prompts_have_a_receipt_each(gateway: Gateway) -> None:
    """Numbered behind the answer's id."""
    answer = json.loads((await ask(gateway, prompt=["a", "b"])).body)
    for index in range(2):
        status, receipt = await get(gateway, f"/audit/request/{answer['id']}-{index}", BEARER)
        assert (status, receipt["intent"]["index"]) == (200, index)
