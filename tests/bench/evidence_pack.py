"""An evidence pack over a large log: `python -m tests.bench.evidence_pack [--records N] [--framework F] [--with-records]`.

Writes a log of so many records of a month (requests, sign-ins, refusals, changes; about 1,100 bytes each), then times
`write_pack` over all of it, and `verify_pack`. With `--dir` the log is kept there and taken again by the next run, so that
only the pack need be measured alone. Nothing passes or fails here.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.note import NoteSigner
from audit.reader import LogReader
from audit.signing_key import load_verifier_key
from compliance.frameworks import FRAMEWORKS
from compliance.pack import PackOrder, write_pack
from compliance.period import make_period
from compliance.verification import verify_pack
from tests.support.evidence import FIRST_MS, MONTH_MS, make_installation, make_results
from tests.support.synthetic_logs import write_log


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--framework", choices=sorted(FRAMEWORKS), default="cmmc-l2")
    parser.add_argument("--with-records", action="store_true")
    parser.add_argument("--dir", type=Path, help="where the log is, or is made and kept; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        print(json.dumps(measure(arguments.dir or Path(folder), Path(folder), arguments)))


def measure(home: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, float | str]:
    """Seconds for the pack and for its verification."""
    if not (home / "log").is_dir():
        write_log(home, arguments.records, first_ms=FIRST_MS, last_ms=FIRST_MS + MONTH_MS - 1)
    reader = LogReader(home / "log")
    key = load_verifier_key(str(home / "log.vkey"))
    signer = NoteSigner("evidence.example/pack", Ed25519PrivateKey.generate())
    order = PackOrder(
        framework=FRAMEWORKS[arguments.framework],
        period=make_period(FIRST_MS, FIRST_MS + MONTH_MS),
        made_at_ms=FIRST_MS + 2 * MONTH_MS,
        installation=make_installation(),
        test_results=make_results(),
        with_records=arguments.with_records,
    )
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    made = write_pack(order, reader, key, folder / "pack", signer)
    pack_s, pack_cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    assert made.manifest.end - made.manifest.start == arguments.records
    started_s = time.perf_counter()
    verify_pack(folder / "pack", key, signer.key)
    return {
        "records": arguments.records,
        "framework": arguments.framework,
        "pack_s": round(pack_s, 2),
        "pack_cpu_s": round(pack_cpu_s, 2),
        "verify_s": round(time.perf_counter() - started_s, 2),
        "pack_files": len(made.manifest.files),
        "pack_bytes": sum(file.bytes for file in made.manifest.files),
        "max_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


if __name__ == "__main__":
    main()
