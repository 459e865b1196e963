"""A token or key that is revoked stops working at every gateway worker within a second.

Whoever asks has a connection to each of several workers and keeps asking on all of them, so that no worker is missed and none that
was told late is overlooked. The second counts from when whoever revoked was told that it stands.
"""

import contextlib
import http.client
import json
import time
import urllib.parse
from collections.abc import Callable, Iterator

import psutil
import pytest

from appliance.demo.client import Credentials
from tests.support.appliance import Appliance
from tests.support.commands import run_casemate
from tests.support.controls import control
from tests.support.waiting import shortest

LIMIT_S = 1.0


class Worker:
    """A connection that one gateway worker has accepted."""

    def __init__(self, appliance: Appliance) -> None:
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", appliance.gateway_port, timeout=60, context=appliance.client.tls
        )
        assert self.status("") == 401
        port = self._connection.sock.getsockname()[1]
        holders = [
            pid
            for name, pid in appliance.pids().items()
            if name.startswith("gateway/")
            for held in psutil.Process(pid).net_connections("tcp")
            if held.raddr and held.raddr.port == port
        ]
        (self.pid,) = holders

    def status(self, credential: str) -> int:
        """What a request by this token or key is answered with."""
        self._connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {credential}"})
        response = self._connection.getresponse()
        response.read()
        return response.status

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def workers(appliance: Appliance) -> Iterator[list[Worker]]:
    """A connection to each worker, of which there are several."""
    with contextlib.ExitStack() as opened:
        found: dict[int, Worker] = {}
        for _ in range(200):
            worker = Worker(appliance)
            opened.callback(worker.close)
            found.setdefault(worker.pid, worker)
            if len(found) == appliance.workers:
                break
        assert len(found) == appliance.workers > 1
        yield list(found.values())


def time_until_refused(workers: list[Worker], credential: str, revoke: Callable[[], object]) -> float:
    """Seconds from the end of `revoke` to when the last worker refused for the first time."""
    assert [worker.status(credential) for worker in workers] == [200] * len(workers)
    revoke()
    began_s = time.monotonic()
    left = list(workers)
    while left:
        left = [worker for worker in left if worker.status(credential) != 401]
        assert time.monotonic() - began_s < 60.0, "it was never refused"
    took_s = time.monotonic() - began_s
    assert [worker.status(credential) for worker in workers] == [401] * len(workers), "refused once, refused for good"
    return took_s


def revoke_token(appliance: Appliance, credentials: Credentials, token: str) -> None:
    """RFC 7009, by the client that has it."""
    connection = http.client.HTTPSConnection(
        "127.0.0.1", appliance.authority_port, timeout=60, context=appliance.client.tls
    )
    fields = {"token": token, "client_id": credentials.client_id, "client_secret": credentials.client_secret}
    with contextlib.closing(connection):
        connection.request(
            "POST", "/revoke", urllib.parse.urlencode(fields), {"Content-Type": "application/x-www-form-urlencoded"}
        )
        assert connection.getresponse().status == 200


def test_a_revoked_token_is_refused_by_every_worker_within_a_second(
    appliance: Appliance, workers: list[Worker]
) -> None:
    """By the endpoint of the authority; another token of the same client goes on."""
    credentials = appliance.create_client("revoker")
    other = appliance.token(credentials)

    def revoke() -> float:
        token = appliance.token(credentials)
        return time_until_refused(workers, token, lambda: revoke_token(appliance, credentials, token))

    assert shortest(revoke, LIMIT_S) <= LIMIT_S
    assert [worker.status(other) for worker in workers] == [200] * len(workers)


def test_a_revoked_static_key_is_refused_by_every_worker_within_a_second(
    appliance: Appliance, workers: list[Worker]
) -> None:
    """By the command; another key of the same client goes on."""
    client = appliance.create_client("keyed").client_id
    words = ("--config", str(appliance.config_file))
    create = ("key", "create", client, "--from", "127.0.0.0/8", "--json", *words)
    other = json.loads(run_casemate(*create))

    def revoke() -> float:
        made = json.loads(run_casemate(*create))
        return time_until_refused(workers, made["key"], lambda: run_casemate("key", "revoke", made["key_id"], *words))

    assert shortest(revoke, LIMIT_S) <= LIMIT_S
    assert [worker.status(other["key"]) for worker in workers] == [200] * len(workers)


@control("AC-2(1)")
def test_a_disabled_clients_tokens_are_refused_by_every_worker_within_a_second(
    appliance: Appliance, workers: list[Worker]
) -> None:
    """By the command, which knows nothing of the token."""

    def disable() -> float:
        credentials = appliance.create_client("leaver")
        token = appliance.token(credentials)
        words = ("client", "disable", credentials.client_id, "--config", str(appliance.config_file))
        return time_until_refused(workers, token, lambda: run_casemate(*words))

    assert shortest(disable, LIMIT_S) <= LIMIT_S
