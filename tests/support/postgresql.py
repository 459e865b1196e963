"""A PostgreSQL server of a test's own, on a port of the loopback device."""

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from tests.support.ports import free_port


class PostgresqlServer:
    """One that runs. Use `running_postgresql`."""

    def __init__(self, programs: str, folder: str, options: dict[str, Any]) -> None:
        self.folder = folder
        self._programs = programs
        self._options = {
            "check": True,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
            "cwd": folder,
            **options,
        }
        self._data = f"{folder}/data"
        self._port = free_port()
        words = [f"{programs}/initdb", "-D", self._data, "-A", "trust", "-U", "casemate", "--no-sync"]
        subprocess.run(words, **self._options)

    @property
    def base(self) -> str:
        """URL of a database that is always there; it is nobody's."""
        return f"postgresql://casemate@127.0.0.1:{self._port}/postgres"

    def make_database(self) -> str:
        """URL of an empty database, in place of the one of before."""
        engine = sqlalchemy.create_engine(driver_url(self.base), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("DROP DATABASE IF EXISTS d WITH (FORCE)")
            connection.exec_driver_sql("CREATE DATABASE d")
        engine.dispose()
        return self.url

    @property
    def url(self) -> str:
        """URL of the database that was made."""
        return self.base.removesuffix("postgres") + "d"

    def start(self) -> None:
        settings = (
            f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories={self.folder} -c fsync=off"
        )
        self._control("-l", f"{self.folder}/log", "-o", settings, "start")

    def stop(self) -> None:
        """At once, as by a loss of power."""
        self._control("-m", "immediate", "stop")

    def _control(self, *words: str) -> None:
        subprocess.run([f"{self._programs}/pg_ctl", "-D", self._data, "-w", *words], **self._options)


def driver_url(url: str) -> str:
    """The URL as SQLAlchemy wants it."""
    return url.replace("postgresql:", "postgresql+psycopg:")


@contextmanager
def running_postgresql() -> Iterator[PostgresqlServer]:
    """A server; it refuses to run as root, so a root runs it as `postgres`. Skips where there is none."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL server is installed")
    options: dict[str, Any] = {}
    folder = tempfile.mkdtemp(prefix="pg")
    try:
        if os.geteuid() == 0:
            try:
                user = pwd.getpwnam("postgres")
            except KeyError:
                pytest.skip("a PostgreSQL server does not run as root, and there is no user postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        server = PostgresqlServer(str(Path(found[-1]).parent), folder, options)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
