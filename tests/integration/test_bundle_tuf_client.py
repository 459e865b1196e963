"""A bundle is a plain TUF repository: python-tuf's own client updates from it over HTTP, with nothing of ours between."""

import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api.exceptions import BadVersionNumberError, ExpiredMetadataError, LengthOrHashMismatchError
from tuf.ngclient import Updater

from security.bundles.medium import METADATA
from security.errors import BundleRejected
from tests.unit.security.bundles.conftest import FILES, NOW, Vendor, write_parts

NAMES = {"docs/naïve name+1.txt": b"by its URL", "docs/~a&b=c;d'e@f$g!h,i(j)": b"and this"}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, *_arguments: object) -> None:
        pass


class Site:
    """Bundles below one address, and a client that remembers."""

    def __init__(self, folder: Path, url: str, vendor: Vendor) -> None:
        self.folder, self.url, self.vendor = folder, url, vendor

    def update(self, bundle: str, memory: Path) -> dict[str, bytes]:
        """What the client gets of all targets; it remembers in `memory`."""
        places = f"{self.url}/{bundle}/metadata/", f"{self.url}/{bundle}/targets/"
        (memory / "got").mkdir(parents=True, exist_ok=True)
        updater = Updater(str(memory), places[0], str(memory / "got"), places[1], bootstrap=self.vendor.roots[0])
        updater.refresh()
        found = {}
        for path in updater._trusted_set.targets.targets:
            target = updater.get_targetinfo(path)
            assert target is not None
            found[path] = Path(updater.download_target(target)).read_bytes()
        return found


@pytest.fixture
def site(tmp_path: Path, vendor: Vendor) -> Iterator[Site]:
    """Releases 1.0.0 and 1.1.0 after it, served."""
    folder = tmp_path / "served"
    vendor.build(folder / "one", write_parts(tmp_path / "one"))
    parts = write_parts(tmp_path / "two", software__run_DOT_py=b"print('two')\n")
    for name, content in NAMES.items():
        (parts / name).write_bytes(content)
    vendor.build(folder / "two", parts, "1.1.0", previous=folder / "one")
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *given: Quiet(*given, directory=str(folder))
    ) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Site(folder, f"http://127.0.0.1:{server.server_address[1]}", vendor)
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    """Who signs."""
    return Vendor()


def test_every_target_is_had(site: Site, tmp_path: Path) -> None:
    """By their names, which may have any character that is not part of a URL; the next release after the first."""
    memory = tmp_path / "memory"
    assert site.update("one", memory).items() >= FILES.items()
    assert site.update("two", memory).items() >= {**FILES, **NAMES, "software/run.py": b"print('two')\n"}.items()


def test_what_went_back_is_mixed_or_old_is_refused(site: Site, tmp_path: Path) -> None:
    """Rollback, freeze, mix and match, other bytes: the client sees each, as the metadata say what it needs."""
    site.update("two", tmp_path / "memory")
    with pytest.raises(BadVersionNumberError):
        site.update("one", tmp_path / "memory")
    shutil.copytree(site.folder / "two", site.folder / "mixed")
    shutil.copy(site.folder / "one" / METADATA / "1.targets.json", site.folder / "mixed" / METADATA / "2.targets.json")
    with pytest.raises(LengthOrHashMismatchError):
        site.update("mixed", tmp_path / "other")
    (changed,) = (site.folder / "two/targets/software").glob("*.run.py")
    changed.write_bytes(b"print('won')\n")
    with pytest.raises(LengthOrHashMismatchError):
        site.update("two", tmp_path / "third")
    long_ago = NOW.replace(year=NOW.year - 2)
    site.vendor.build(site.folder / "frozen", write_parts(tmp_path / "frozen"), now=long_ago)
    with pytest.raises(ExpiredMetadataError):
        site.update("frozen", tmp_path / "fourth")


@pytest.mark.parametrize("name", ["50%.txt", "why?.txt", "a#b"])
def test_names_that_a_url_cuts_are_not_built(name: str, vendor: Vendor, tmp_path: Path) -> None:
    """No client over HTTP would find them."""
    parts = write_parts(tmp_path / "parts")
    (parts / "docs" / name).touch()
    with pytest.raises(BundleRejected, match="over HTTP would not find it"):
        vendor.build(tmp_path / "bundle", parts)
