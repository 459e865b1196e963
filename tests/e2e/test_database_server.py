"""An appliance whose definitions lie in a PostgreSQL server: limits, backup, restore, loss of the server, a failed migration."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from appliance.cli.main import EXIT_MISCONFIGURED
from appliance.demo.client import Credentials
from appliance.errors import CommandFailed
from tests.support.appliance import Appliance
from tests.support.commands import run_casemate
from tests.support.postgresql import PostgresqlServer, driver_url, running_postgresql
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long


@pytest.fixture
def server() -> Iterator[PostgresqlServer]:
    with running_postgresql() as running:
        yield running


@pytest.fixture
def appliance(server: PostgresqlServer, tmp_path: Path) -> Iterator[Appliance]:
    """Not started yet."""
    appliance = Appliance(tmp_path / "a", extra=f'[policy]\ndatabase_url = "{server.make_database()}"\n')
    yield appliance
    appliance.stop()


def command(appliance: Appliance, *words: str) -> str:
    return run_casemate(*words, "--config", str(appliance.config_file))


def complete(appliance: Appliance, token: str) -> int:
    """HTTP status of a request for one token."""
    connection = http.client.HTTPSConnection(
        "127.0.0.1", appliance.gateway_port, timeout=60, context=appliance.client.tls
    )
    try:
        body = json.dumps({"model": "casemate-demo", "prompt": "Hello", "max_tokens": 1})
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/completions", body, headers)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def test_definitions_in_a_server_are_those_of_a_file(
    appliance: Appliance, server: PostgresqlServer, tmp_path: Path
) -> None:
    """Limits hold; without the server nobody is let in, with it again all are; a backup makes it all anew."""
    appliance.start()
    limited = appliance.create_client("limited")
    command(appliance, "quota", "set", "client", limited.client_id, "--tokens-per-day", "9")
    free = appliance.create_client("free")
    token, other = appliance.token(limited), appliance.token(free)
    wait_until(lambda: complete(appliance, token) == 429)
    assert complete(appliance, other) == 200

    server.stop()
    wait_until(lambda: complete(appliance, other) == 503)
    wait_until(lambda: appliance.status("/ready") == 503)
    server.start()
    wait_until(lambda: complete(appliance, other) == 200)
    assert complete(appliance, token) == 429

    command(appliance, "state", "backup", str(tmp_path / "backup.tar"))
    appliance.stop()
    server.make_database()
    command(appliance, "state", "restore", str(tmp_path / "backup.tar"))
    appliance.start()
    assert complete(appliance, appliance.token(free)) == 200
    assert complete(appliance, appliance.token(limited)) == 429
    with pytest.raises(CommandFailed, match="401"):
        appliance.token(Credentials(free.client_id, "another"))


def test_another_appliance_is_refused(appliance: Appliance, tmp_path: Path) -> None:
    """It would take changes of this one for its own log; nothing of it starts, and its commands change nothing."""
    appliance.start()
    client = appliance.create_client()
    other = Appliance(tmp_path / "b", extra=appliance.extra)
    other.start(wait=False)
    assert other.process is not None
    assert other.process.wait(120) == 78
    assert "another appliance's" in other.log()
    run_casemate("client", "list", "--config", str(other.config_file), status=EXIT_MISCONFIGURED)
    assert complete(appliance, appliance.token(client)) == 200


def test_a_migration_that_fails_stops_the_start_and_leaves_the_database(
    appliance: Appliance, server: PostgresqlServer
) -> None:
    """By the code of a refused configuration, and in words; when the cause is gone it starts."""
    appliance.start()
    client = appliance.create_client()
    appliance.stop()
    engine = sqlalchemy.create_engine(driver_url(server.url))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    appliance.start(wait=False)
    assert appliance.process is not None
    assert appliance.process.wait(120) == 78
    assert "cannot be migrated" in appliance.log()
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "0001"
        connection.exec_driver_sql("ALTER TABLE users DROP COLUMN passkeys")
        connection.exec_driver_sql("ALTER TABLE changes DROP COLUMN source")
    engine.dispose()
    appliance.start()
    assert complete(appliance, appliance.token(client)) == 200
