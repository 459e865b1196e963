"""Where `casemate audit` puts what it was asked for."""

import os
from pathlib import Path

import pytest

from appliance.cli.audit.arguments import WrongUsage, write_private_output


@pytest.mark.parametrize("is_there", [False, True])
def test_an_opened_body_is_its_readers_alone(tmp_path: Path, is_there: bool) -> None:
    """Whatever the umask says, and whoever could read a file of that name before."""
    path = tmp_path / "prompt.json"
    before = os.umask(0)
    try:
        if is_there:
            path.write_text("something longer than what comes")
        write_private_output(b"a prompt\n", path)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"a prompt\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_body_that_cannot_be_written_is_said_by_name(tmp_path: Path) -> None:
    """It was recorded as opened; the person should know that it is not there."""
    with pytest.raises(WrongUsage, match=r"missing/prompt\.json: cannot be written: No such file"):
        write_private_output(b"a prompt\n", tmp_path / "missing" / "prompt.json")


def test_without_a_file_it_goes_to_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """As it is, for a pipe."""
    write_private_output(b"a prompt\n", None)
    assert capfdbinary.readouterr().out == b"a prompt\n"
