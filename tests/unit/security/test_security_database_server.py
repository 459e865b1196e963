"""Where a database server's URL leads is what SQLAlchemy and libpq make of it."""

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from security.database_server import DatabaseServer, find_database_servers
from security.errors import SecurityMisconfigured


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("10.0.0.1/d", [("10.0.0.1", 5432)]),
        ("[fd00::6]:5433/d", [("fd00::6", 5433)]),
        ("db.site:1/d?hostaddr=10.0.0.1", [("10.0.0.1", 1)]),
        ("db.site:1/d?hostaddr=10.0.0.1&port=7", [("10.0.0.1", 7)]),
        ("db.site/d?host=10.0.0.1", [("10.0.0.1", 5432)]),
        ("/d?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("/d?host=a:1&host=b:2", [("a", 1), ("b", 2)]),
        ("/d?host=a,b", [("a", 5432), ("b", 5432)]),
        ("/d?host=/run/postgresql", [("/run/postgresql", 5432)]),
        ("/d", [("", 5432)]),
    ],
)
def test_places_are_those_that_the_driver_is_given(place: str, expected: list[tuple[str, int]]) -> None:
    """Hosts and ports beside those of the dialect's own arguments."""
    servers = find_database_servers(f"postgresql://casemate@{place}")
    assert [tuple(server) for server in servers] == expected
    url = sqlalchemy.make_url(f"postgresql+psycopg://casemate@{place}")
    given = PGDialect_psycopg().create_connect_args(url)[1]
    assert (given.get("hostaddr") or given.get("host", "")).split(",") == [server.host for server in servers]
    ports = str(given.get("port", 5432)).split(",")
    assert {int(port or 5432) for port in ports} == {server.port for server in servers}


def test_a_place_is_an_address_a_name_or_a_socket() -> None:
    """As each is reached in another way."""
    assert str(DatabaseServer("fd00::6", 1).address) == "fd00::6"
    assert DatabaseServer("db.site", 1).address is None
    assert [DatabaseServer(host, 1).is_socket for host in ("", "/run/pg", "@pg", "db", "10.0.0.1")] == [True] * 3 + [
        False
    ] * 2


@pytest.mark.parametrize(
    "url",
    ["mysql://a@h/d", "h", "postgresql://a@h:99999/d", "postgresql://a@[h/d", "postgresql://a@h/d?port=1,2",
     "postgresql://a@h/d?port=x", "postgresql:///d?host=a,b&port=7"],
)  # fmt: skip
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    """By a message that has none of it."""
    with pytest.raises(SecurityMisconfigured) as refused:
        find_database_servers(url)
    assert "a@" not in str(refused.value)


@given(st.text() | st.builds("postgresql://{}".format, st.text()))
def test_nothing_but_the_family_escapes(url: str) -> None:
    """Whatever stands in the configuration."""
    try:
        assert find_database_servers(url)
    except SecurityMisconfigured:
        pass
