"""Commands of `casemate` in the process of the test: all of them but the start of an interpreter, which takes a second."""

import contextlib
import io

from appliance.cli.main import EXIT_OK, main


def run_casemate(*words: str, status: int = EXIT_OK) -> str:
    """Run a command that ends with this status; gives what it printed."""
    data = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(data, encoding="utf-8", write_through=True)) as stdout:
        ended = main(words)
        stdout.detach()  # Else the wrapper's end would close `data`.
    printed = data.getvalue().decode()
    assert ended == status, printed
    return printed


def try_casemate(*words: str) -> tuple[int, str]:
    """Run a command that may fail; gives its status, and what it printed on both streams."""
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        ended = main(words)
        stream.detach()
    return ended, data.getvalue().decode()
