"""Makes `.venv` and installs Casemate into it, with every version taken from a constraint file.

What `make setup` and `make demo` run, with the system's Python and nothing but its standard library. pip's own output goes
to `.venv/install.log`; the terminal gets one line with what is happening and for how long.

The build of our own wheel is not isolated: an isolated one would fetch its tools without our pins. So they are installed
first, under the same pins.

Usage: python3 constraints/install.py {cpu,cuda} EXTRA...
"""

import json
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

VENV = Path(".venv")
PYTHON = VENV / "bin" / "python"
LOG = VENV / "install.log"
_URL = re.compile(r"\b[a-z+]+://\S+")
_NETWORK = re.compile(
    r"timed out|connection (broken|reset|aborted|refused)|IncompleteRead|RemoteDisconnected|NewConnectionError|HTTP error 5\d\d"
    r"|5\d\d Server Error|Temporary failure in name resolution|SSLEOFError",
    re.IGNORECASE,
)
"""What pip says where another try may succeed."""
_WAITS_S = (5.0, 20.0, 60.0)
_QUIET_REPEAT_S = 15.0
_SIZES = {
    "cpu": "The first time this fetches about 1 GB, or several where the index has torch only as built for CUDA.",
    "cuda": "The first time this fetches several GB.",
}


def make_environment() -> None:
    """Make `.venv`, or make it anew when its Python no longer runs (moved folder, upgraded system)."""
    works = PYTHON.exists() and subprocess.run([PYTHON, "-c", ""], check=False, capture_output=True).returncode == 0  # noqa: S603
    if not works:
        sys.stderr.write(f"Making .venv with Python {sys.version.split()[0]}\n")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)  # noqa: S603


def install(what: str, constraints: Path, requirements: list[str]) -> None:
    """Run pip, say what is going on, and end with its error lines if it fails.

    pip tries a request again that was not answered, but not a file that came in part: then it is run again, and what came whole
    is in its cache.
    """
    for wait_s in (*_WAITS_S, None):
        status, output = run_pip(what, constraints, requirements)
        if status == 0:
            return
        if wait_s is None or not _NETWORK.search(output):
            break
        sys.stderr.write(f"{what}: the connection to the package index broke; again in {wait_s:g} s\n")
        time.sleep(wait_s)
    # Addresses of indexes may hold a password, so none is repeated here.
    errors = [
        _URL.sub("<address>", line) for line in output.splitlines() if line.lower().startswith(("error", "  error"))
    ]
    raise SystemExit("\n".join([f"{what}: pip failed; all of its output is in {LOG}", *errors[-10:]]))


def run_pip(what: str, constraints: Path, requirements: list[str]) -> tuple[int, str]:
    """Run it once; gives its exit status and what it said."""
    command = [
        str(PYTHON),
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
    ]
    command += ["--constraint", str(constraints), *requirements]
    with LOG.open("ab+") as log:
        start_of_run = log.seek(0, 2)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603
        watch(what, process, start_of_run)
        log.seek(start_of_run)
        return process.returncode, log.read().decode(errors="replace")


def remove_unpinned(constraints: Path) -> None:
    """Remove what no pin names, left by older pins: an environment that differs from its file proves nothing."""
    pinned = {line.split("==")[0] for line in constraints.read_text().splitlines() if "==" in line}
    listed = subprocess.run(  # noqa: S603
        [PYTHON, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"], check=True, capture_output=True
    )
    names = {re.sub(r"[-_.]+", "-", found["name"]).lower() for found in json.loads(listed.stdout)}
    if strays := sorted(names - pinned - {"casemate", "pip"}):
        sys.stderr.write(f"Removing what {constraints} does not name: {', '.join(strays)}\n")
        with LOG.open("ab") as log:
            command = [PYTHON, "-m", "pip", "uninstall", "--yes", "--disable-pip-version-check", *strays]
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603


def watch(what: str, process: "subprocess.Popen[bytes]", start_of_run: int) -> None:
    """Show progress until the process ends: redrawn on a terminal, now and then a line elsewhere."""
    started, said_at = time.monotonic(), 0.0
    on_terminal = sys.stderr.isatty()
    sys.stderr.write("" if on_terminal else f"{what} …\n")
    while process.poll() is None:
        time.sleep(0.2)
        elapsed = time.monotonic() - started
        if on_terminal:
            sys.stderr.write(f"\r\x1b[K{what} … {elapsed:.0f} s, {describe_progress(start_of_run)}")
        elif elapsed - said_at >= _QUIET_REPEAT_S:
            said_at = elapsed
            sys.stderr.write(f"{what} … {elapsed:.0f} s, {describe_progress(start_of_run)}\n")
        sys.stderr.flush()
    outcome = "failed" if process.returncode else "done"
    sys.stderr.write(("\r\x1b[K" if on_terminal else "") + f"{what}: {outcome}, {time.monotonic() - started:.0f} s\n")


def describe_progress(start_of_run: int) -> str:
    """What pip is at, from its log."""
    with LOG.open("rb") as log:
        log.seek(start_of_run)
        lines = log.read().decode(errors="replace").splitlines()
    names = [re.split("[^A-Za-z0-9._-]", line.split()[1])[0] for line in lines if line.startswith("Collecting ")]
    unpacking = next((line for line in lines if line.startswith("Installing collected packages")), None)
    if unpacking:
        return f"unpacking {unpacking.count(',') + 1} packages"
    return f"{len(names)} packages found" + (f", now {names[-1]}" if names else "")


def main() -> int:
    """Make the environment and install into it."""
    pins, extras = sys.argv[1], sys.argv[2:]
    constraints = Path("constraints", f"{pins}.txt")
    build = tomllib.loads(Path("pyproject.toml").read_text())["build-system"]["requires"]
    make_environment()
    LOG.unlink(missing_ok=True)
    install("Installing the build tools", constraints, build)
    sys.stderr.write(f"{_SIZES[pins]}\n")
    project = ["--no-build-isolation", "--editable", f".[{','.join(extras)}]"]
    install("Installing Casemate and what it needs", constraints, project)
    remove_unpinned(constraints)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the next `make` goes on from here.")
