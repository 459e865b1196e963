"""Bundles and a release's evidence, read by software of others: tuf-js, sigstore, CycloneDX, in-toto. `make test-interop`."""

import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key

from image.evidence import find_components, read_statements
from security.bundles.medium import METADATA
from security.supply_chain.components import Component
from security.supply_chain.evidence import PROVENANCE, SBOM, VEX, hash_release_files
from security.supply_chain.provenance import Provenance, dependencies_of, sign_provenance
from security.supply_chain.sbom import encode_sbom
from security.supply_chain.vex import encode_vex
from tests.interop.conftest import HERE, javascript, program_of
from tests.support.stewardship import Holder, make_root
from tests.unit.security.bundles.conftest import FILES, NOW, Vendor, write_parts

pytestmark = pytest.mark.long


def run_javascript(script: str, *arguments: object) -> Any:
    """What a script of tests/interop/javascript printed."""
    command = [*javascript(script), *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def judge(*words: object) -> str:
    """What a judge of judge.py objects to; nothing if it is content."""
    command = [str(program_of("judges", "python")), str(HERE / "judge.py"), *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(params=[SECP256R1(), SECP384R1()], ids=lambda curve: curve.name)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    """Who signs, with both kinds of keys."""
    return Vendor(Holder("vendor", generate_private_key(request.param)))


@pytest.fixture
def served(tmp_path: Path, vendor: Vendor) -> Iterator[tuple[Path, str]]:
    """Bundles `one` and `two`, their folder, and its address."""
    folder = tmp_path / "served"
    vendor.build(folder / "one", write_parts(tmp_path / "one"))
    parts = write_parts(tmp_path / "two", software__run_DOT_py=b"print('two')\n")
    vendor.build(folder / "two", parts, "1.1.0", previous=folder / "one")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_tuf_js_updates_from_a_bundle(served: tuple[Path, str], vendor: Vendor, tmp_path: Path) -> None:
    """An independent client, given our root: each target; rollback, freeze, mix and match, other bytes, another root refused."""
    folder, url = served
    root, memory = tmp_path / "root.json", tmp_path / "memory"
    root.write_bytes(vendor.roots[0])
    sizes = {name: len(content) for name, content in FILES.items()}
    assert run_javascript("update.mjs", root, f"{url}/one", memory)["targets"].items() >= sizes.items()
    sizes["software/run.py"] = len(b"print('two')\n")
    assert run_javascript("update.mjs", root, f"{url}/two", memory)["targets"].items() >= sizes.items()
    back = run_javascript("update.mjs", root, f"{url}/one", memory)
    assert "New timestamp version 1 is less than current version 2" in back["refused"]

    shutil.copytree(folder / "two", folder / "mixed")
    shutil.copy(folder / "one" / METADATA / "1.targets.json", folder / "mixed" / METADATA / "2.targets.json")
    assert "refused" in run_javascript("update.mjs", root, f"{url}/mixed", tmp_path / "m2")

    vendor.build(folder / "frozen", tmp_path / "one", now=NOW.replace(year=NOW.year - 2))
    assert "ExpiredMetadata" in run_javascript("update.mjs", root, f"{url}/frozen", tmp_path / "m3")["refused"]

    (changed,) = (folder / "two/targets/software").glob("*.run.py")
    changed.write_bytes(b"print('won')\n")
    got = run_javascript("update.mjs", root, f"{url}/two", tmp_path / "m4")["targets"]
    assert "LengthOrHashMismatch" in got["software/run.py"]

    root.write_bytes(make_root(Holder("somebody else")))
    assert "UnsignedMetadata" in run_javascript("update.mjs", root, f"{url}/two", tmp_path / "m5")["refused"]


@pytest.fixture
def release(tmp_path: Path) -> tuple[Path, Holder]:
    """The evidence of a release that is made of the image's parts, and who signed it."""
    folder, builder, components = tmp_path / "dist", Holder("builder"), find_components()
    folder.mkdir()
    (folder / "image.tar").write_bytes(b"image")
    (folder / SBOM).write_bytes(encode_sbom(Component("pypi", "casemate", "1.0.0"), components))
    reviewed_at, statements = read_statements()
    (folder / VEX).write_bytes(encode_vex("urn:casemate:vex:1.0.0", "us", reviewed_at, statements))
    parameters = {"source_commit": "c0ffee", "target": "casemate-cpu"}
    provenance = Provenance(hash_release_files(folder), parameters, "urn:builder", dependencies_of(components))
    (folder / PROVENANCE).write_bytes(sign_provenance(provenance, builder.signer))
    return folder, builder


def test_cyclonedx_takes_the_sbom(release: tuple[Path, Holder]) -> None:
    """Its strict JSON schema and its library."""
    assert judge("sbom", release[0] / SBOM) == ""


def test_in_toto_takes_the_provenance(release: tuple[Path, Holder]) -> None:
    """Statement v1 and SLSA provenance v1, as in-toto's own messages."""
    assert judge("provenance", release[0] / PROVENANCE) == ""


def test_sigstore_reads_and_verifies_the_envelope(release: tuple[Path, Holder], tmp_path: Path) -> None:
    """DSSE as sigstore's JavaScript has it: payload, pre-authentication encoding, signature."""
    folder, builder = release
    (tmp_path / "builder.pub").write_text(builder.public_pem)
    (tmp_path / "other.pub").write_text(Holder("other").public_pem)
    read = run_javascript("read_envelope.mjs", folder / PROVENANCE, tmp_path / "builder.pub")
    assert (read["payloadType"], read["verified"]) == ("application/vnd.in-toto+json", [True])
    assert read["payload"]["predicateType"] == "https://slsa.dev/provenance/v1"
    assert run_javascript("read_envelope.mjs", folder / PROVENANCE, tmp_path / "other.pub")["verified"] == [False]
