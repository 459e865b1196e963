"""Coverage-guided fuzzing of the parsers, by atheris: `python -m tests.fuzz [--runs N | --seconds S] [--corpus DIR] [PARSER …]`.

The first byte of an input chooses the parser, so that one process attacks all. Ends with status 0 if nothing was found; else
libFuzzer's, with the traceback, and writes the input to `crash-…` in the current folder.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["appliance.gateway", "audit", "runtime.weights", "security", "tests.fuzz"]):
    from tests.fuzz.parsers import PARSERS, attack

MAX_INPUT_BYTES = 4096
SLOWEST_INPUT_S = 10


def main() -> None:
    """The command line. Does not return: libFuzzer ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="PARSER", help=f"of: {', '.join(PARSERS)} (default: all)")
    parser.add_argument("--runs", type=int, default=-1, help="inputs to try")
    parser.add_argument("--seconds", type=int, default=0, help="time to take; 0: no limit")
    parser.add_argument("--seed", type=int, default=1, help="of the generator; the same seed tries the same inputs")
    parser.add_argument("--corpus", type=Path, help="keeps what reached new code, for the next time")
    options = parser.parse_args()
    unknown = set(options.names) - set(PARSERS)
    if unknown:
        parser.error(f"no parser {', '.join(sorted(unknown))}")
    names = options.names or list(PARSERS)
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="fuzz-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (corpus / f"start-{number}").write_bytes(bytes([number]) + PARSERS[name][1])

    def attack_one(data: bytes) -> None:
        if data:
            attack(names[data[0] % len(names)], data[1:])

    limits = [f"-runs={options.runs}", f"-max_total_time={options.seconds}", f"-seed={options.seed}"]
    sizes = [f"-max_len={MAX_INPUT_BYTES}", f"-timeout={SLOWEST_INPUT_S}"]
    atheris.Setup([sys.argv[0], *limits, *sizes, str(corpus)], attack_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
