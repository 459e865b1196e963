"""A bundle against a host: the good one is taken, and every kind of bad one is refused with nothing changed."""

import datetime
import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from security.bundles import medium as medium_module
from security.bundles.building import Lifetimes, build_bundle
from security.bundles.installing import install_bundle, verify_files
from security.bundles.medium import Medium
from security.bundles.release import Release, encode_release, parse_release, parse_version
from security.bundles.roots import build_root, sign_root
from security.bundles.slots import SlotContent
from security.bundles.verification import open_bundle
from security.errors import BundleRejected, BundleUnreadable, KeyUnusable, SecurityFault, TrustUnusable
from tests.support.controls import control
from tests.support.stewardship import FAR, Holder, make_root
from tests.unit.security.bundles.conftest import FILES, NOW, Site, Vendor, write_parts

DAY = datetime.timedelta(days=1)


def test_bundle_is_verified_and_installed(site: Site, bundle: Path) -> None:
    """Exactly the files of the release, with the executable bit where it was."""
    content = site.install(bundle)
    assert (content.slot, content.name) == ("a", "1.0.0")
    folder = site.host.folder_of("a")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {name: data for name, data in found.items() if name != "release.json"} == FILES
    assert os.access(folder / "software/run.py", os.X_OK)
    assert not os.access(folder / "software/lib/code.py", os.X_OK)


def test_nothing_is_installed_that_cannot_be_announced(site: Site, bundle: Path) -> None:
    """It is told before the slot has it: what is raised then leaves the slot empty, and the next try fills it."""
    told = []

    def refuse(content: SlotContent) -> None:
        told.append((content.slot, content.name, site.host.content_of("a")))
        raise KeyUnusable("no space for a notice")

    with pytest.raises(KeyUnusable, match="no space"):
        site.install(bundle, announce=refuse)
    assert told == [("a", "1.0.0", None)]
    assert site.host.content_of("a") is None
    assert site.install(bundle) == site.host.content_of("a")


def test_what_an_installation_remembers_is_the_owners_and_open(site: Site, bundle: Path, tmp_path: Path) -> None:
    """Root installs where somebody else serves: the owner of the folder must read, and replace, what the client wrote."""
    owner = 60_999 if os.geteuid() == 0 else os.geteuid()
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    outside.chmod(0o600)
    site.trust.path.chmod(0o755)
    (site.trust.path / "link").symlink_to(outside)
    (site.trust.path / "second name").hardlink_to(outside)
    for path in (site.trust.path, *site.trust.path.rglob("*")):
        if not path.name.startswith(("link", "second")):
            os.chown(path, owner, -1)
    site.install(bundle)
    written = [path for path in site.trust.path.rglob("*") if path.name != "second name"]
    assert "timestamp.json" in {path.name for path in written}
    for path in written:
        assert path.lstat().st_uid == owner, path
        assert path.is_symlink() or stat.S_IMODE(path.lstat().st_mode) & 0o044 == 0o044, path
    assert (outside.stat().st_uid, stat.S_IMODE(outside.stat().st_mode)) == (os.geteuid(), 0o600)


def test_looking_changes_nothing(site: Site, bundle: Path, tmp_path: Path) -> None:
    """A bundle that was only verified does not advance the host's memory."""
    before = sorted(path for path in (tmp_path / "state").rglob("*"))
    site.verify(bundle)
    assert sorted(path for path in (tmp_path / "state").rglob("*")) == before
    assert not site.host.path.exists()


def look(site: Site, bundle: Path) -> int:
    """Verify a bundle with all of its files; how many the running slot would give."""
    with open_bundle(bundle, site.trust, "vendor", now=NOW, remember=False) as opened:
        return verify_files(site.host, opened)


def test_looking_reads_every_file(site: Site, bundle: Path) -> None:
    """A copy that is truncated, altered or not whole is told before it is carried, all of it at once."""
    assert look(site, bundle) == 0
    os.truncate(one(bundle, "targets/kernels/*"), 70 << 30)
    flip(one(bundle, "targets/software/lib/*.code.py"))
    one(bundle, "targets/docs/*").unlink()
    with pytest.raises(BundleRejected) as caught:
        look(site, bundle)
    problems = str(caught.value).splitlines()
    assert [problem.split(":")[0] for problem in problems] == [
        "docs/empty",
        "kernels/decode.cubin",
        "software/lib/code.py",
    ]
    assert "is neither on the medium nor in the running slot" in problems[0]
    assert all("other bytes than those signed" in problem for problem in problems[1:])


def test_looking_at_a_delta_counts_what_the_running_slot_has(
    site: Site, bundle: Path, next_bundle: Callable[..., Path]
) -> None:
    """Verified there; on a host that does not have it nothing is good."""
    delta = next_bundle(is_delta=True)
    site.install(bundle)
    with pytest.raises(BundleRejected, match="neither on the medium nor in the running slot"):
        look(site, delta)
    site.host.switch_to("a")
    assert look(site, delta) == 3
    flip(site.host.folder_of("a") / "software/lib/code.py")
    with pytest.raises(BundleRejected, match=r"software/lib/code\.py: is neither"):
        look(site, delta)


def test_same_parts_give_the_same_release(tmp_path: Path, vendor: Vendor, site: Site) -> None:
    """The digest stands for the content and not for the signatures."""
    parts = write_parts(tmp_path / "parts")
    digests = set()
    for name in ("one", "two"):
        vendor.build(tmp_path / name, parts)
        digests.add(site.verify(tmp_path / name))
    assert len(digests) == 1


def flip(path: Path, place: int = -2) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def one(bundle: Path, pattern: str) -> Path:
    """The one file of a pattern."""
    (path,) = bundle.glob(pattern)
    return path


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a target's byte": lambda b: flip(one(b, "targets/software/lib/*.code.py")),
    "a truncated target": lambda b: os.truncate(one(b, "targets/kernels/*"), 100),
    "a longer target": lambda b: os.truncate(one(b, "targets/kernels/*"), 70 << 30),
    "a missing target": lambda b: one(b, "targets/kernels/*").unlink(),
    "release.json": lambda b: flip(one(b, "targets/*.release.json")),
    "targets metadata": lambda b: flip(b / "metadata/1.targets.json", 500),
    "snapshot metadata": lambda b: flip(b / "metadata/1.snapshot.json", 100),
    "timestamp metadata": lambda b: flip(b / "metadata/timestamp.json", 100),
    "truncated timestamp": lambda b: os.truncate(b / "metadata/timestamp.json", 40),
    "empty timestamp": lambda b: os.truncate(b / "metadata/timestamp.json", 0),
    "no timestamp": lambda b: (b / "metadata/timestamp.json").unlink(),
    "a huge timestamp": lambda b: os.truncate(b / "metadata/timestamp.json", 70 << 30),
    "timestamp that is a list": lambda b: (b / "metadata/timestamp.json").write_text("[]"),
    "a next root by a stranger": lambda b: (b / "metadata/2.root.json").write_bytes(make_root(Holder("eve"))),
    "an extra file": lambda b: (b / "targets/extra").touch(),
    "an extra file at the top": lambda b: (b / "autorun.inf").touch(),
    "a symlink": lambda b: (b / "targets/link").symlink_to("/etc/passwd"),
    "a link in place of a target": lambda b: (one(b, "targets/kernels/*").unlink(), (b / "targets/kernels/x").symlink_to("/")),
    "a pipe": lambda b: os.mkfifo(b / "targets/pipe"),
    "no metadata": lambda b: shutil.rmtree(b / "metadata"),
    "a name with a control character": lambda b: (b / "targets/a\nb").touch(),
}  # fmt: skip


@control("3.4.8", "3.7.4", "3.14.2", "CM-7(5)", "CM-8(3)", "CM-14", "SI-3", "SI-7", "SI-7(5)", "SI-7(15)", "SR-9")
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_bundle_is_refused(damage: Callable[[Path], object], site: Site, bundle: Path) -> None:
    """Whatever it is, the family's error says it, and no slot is filled."""
    damage(bundle)
    with pytest.raises(SecurityFault):
        site.install(bundle)
    assert site.host.content_of("a") is None
    assert site.host.current() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device nodes")
def test_device_node_is_refused(site: Site, bundle: Path) -> None:
    """Opened, it could be anything."""
    try:
        os.mknod(bundle / "targets/null", 0o600 | 0o020000, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("device nodes cannot be made here")
    with pytest.raises(BundleRejected, match="device"):
        site.verify(bundle)


def test_hard_link_is_data_like_any_other(site: Site, bundle: Path, tmp_path: Path) -> None:
    """A digest covers bytes; a name that shares them with another changes nothing, and is not kept in the slot."""
    path = one(bundle, "targets/kernels/*")
    os.link(path, tmp_path / "outside")
    site.install(bundle)
    assert os.stat(site.host.folder_of("a") / "kernels/decode.cubin").st_nlink == 1


def test_a_million_files_are_not_listed_to_the_end(site: Site, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count stops at the bound."""
    monkeypatch.setattr("security.bundles.medium.MAX_BUNDLE_FILES", 30)
    for number in range(40):
        (bundle / "targets" / str(number)).touch()
    with pytest.raises(BundleRejected, match="holds more than"):
        site.verify(bundle)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a//b", "a\\b", ".", "software/run.py/x"])
def test_paths_that_climb_are_refused(path: str, site: Site, tmp_path: Path, vendor: Vendor) -> None:
    """Even rightly signed: there is no archive to unpack, and no name that leads out of the slot."""
    (tmp_path / "parts").mkdir()
    write_parts(tmp_path / "parts")
    release = Release("vendor", (1, 0, 0), NOW)
    components = {"software": tmp_path / "parts/software", path: tmp_path / "parts/docs/empty"}

    def build_and_install() -> None:
        build_bundle(tmp_path / "out/bundle", vendor.roots, release, components, [vendor.holder.signer], now=NOW)
        site.install(tmp_path / "out/bundle")

    with pytest.raises((SecurityFault, OSError)):
        build_and_install()
    assert site.host.content_of("a") is None


@control("SI-7(15)")
def test_expired_metadata_stop_an_installation(site: Site, tmp_path: Path, vendor: Vendor) -> None:
    """Four months under way are too long for one that may take three; nothing that runs is stopped by it."""
    parts = write_parts(tmp_path / "parts")
    vendor.build(tmp_path / "old", parts, now=NOW - 91 * DAY, lifetimes=Lifetimes(snapshot=90 * DAY))
    with pytest.raises(BundleRejected, match=rf"expired on {NOW - DAY:%Y-%m-%d}, and the clock says {NOW:%Y-%m-%d}"):
        site.install(tmp_path / "old")
    vendor.build(tmp_path / "new", parts, now=NOW - 89 * DAY, lifetimes=Lifetimes(snapshot=90 * DAY))
    assert site.install(tmp_path / "new").name == "1.0.0"


def test_clock_that_went_back_stops_an_installation(site: Site, bundle: Path, next_bundle: Callable[..., Path]) -> None:
    """A year behind: expired metadata would look fresh."""
    site.install(bundle)
    with pytest.raises(BundleRejected, match="set the clock; if it was ahead on that day"):
        site.install(next_bundle(), now=NOW - 365 * DAY)


@control("SI-7(15)")
def test_old_metadata_are_refused_after_new_ones(site: Site, bundle: Path, next_bundle: Callable[..., Path]) -> None:
    """Rollback: the host remembers, even where the newer bundle was not installed to its end."""
    newer = next_bundle()
    shutil.rmtree(newer / "targets/software")
    with pytest.raises(BundleRejected):
        site.install(newer)
    with pytest.raises(BundleRejected, match="version"):
        site.install(bundle)


def test_mixed_bundles_are_refused(site: Site, bundle: Path, next_bundle: Callable[..., Path]) -> None:
    """The timestamp of one, the snapshot of another; targets of one beside the metadata of another."""
    newer = next_bundle()
    mixed = bundle.with_name("mixed")
    shutil.copytree(bundle, mixed)
    shutil.copy(newer / "metadata/timestamp.json", mixed / "metadata")
    with pytest.raises(BundleRejected, match=r"2\.snapshot\.json"):
        site.verify(mixed)
    shutil.copy(bundle / "metadata/1.snapshot.json", mixed / "metadata/2.snapshot.json")
    with pytest.raises(BundleRejected):
        site.verify(mixed)


def test_bundle_that_was_built_apart_is_told(site: Site, bundle: Path, tmp_path: Path, vendor: Vendor) -> None:
    """Without `previous` it has a version that the host has seen: TUF's client would judge it by the list of the other."""
    site.install(bundle)
    parts = write_parts(tmp_path / "apart", docs__more=b"more")
    vendor.build(tmp_path / "apart-bundle", parts, "1.1.0")
    for _ in range(2):
        with pytest.raises(BundleRejected, match=r"has the version 1 of another bundle that was here: .* --previous"):
            site.install(tmp_path / "apart-bundle")
    vendor.build(tmp_path / "after", parts, "1.1.0", previous=bundle)
    site.install(tmp_path / "after")
    with pytest.raises(BundleRejected, match=r"is older than what this host has seen.* --previous"):
        site.install(tmp_path / "apart-bundle")


def test_same_files_signed_anew_are_the_same_bundle(site: Site, bundle: Path, tmp_path: Path, vendor: Vendor) -> None:
    """Other signatures and another expiry, as a vendor does whose courier was late."""
    site.install(bundle)
    vendor.build(tmp_path / "anew", tmp_path / "parts", now=NOW + DAY)
    assert site.verify(tmp_path / "anew") == site.verify(bundle)


@pytest.mark.parametrize("name", ["timestamp.json", "2.root.json"])
def test_member_given_twice_is_refused(name: str, site: Site, bundle: Path, vendor: Vendor) -> None:
    """The signature of a good key is over what a parser made of the file: the last of two, or the first."""
    keys = {role: [vendor.holder.key.public_key()] for role in ("root", "targets", "snapshot", "timestamp")}
    second = build_root(keys, dict.fromkeys(keys, 1), expires_at=FAR, version=2)  # type: ignore[arg-type]
    (bundle / "metadata/2.root.json").write_bytes(sign_root(second, vendor.holder.signer))
    assert site.verify(bundle)
    path = bundle / "metadata" / name
    path.write_bytes(path.read_bytes().replace(b'"spec_version"', b'"spec_version":"9","spec_version"', 1))
    with pytest.raises(BundleRejected, match=f"metadata/{name}: a member name occurs twice"):
        site.verify(bundle)


@control("3.4.5", "3.4.9", "3.7.4", "CM-5", "CM-5(1)", "CM-11", "CM-14", "SI-7(15)")
def test_signature_by_another_key_is_refused(site: Site, tmp_path: Path) -> None:
    """Another vendor's bundle, good in itself."""
    other = Vendor(Holder("other"))
    other.build(tmp_path / "other", write_parts(tmp_path / "parts"))
    with pytest.raises(BundleRejected, match="not signed by enough of the keys in the vendor root"):
        site.verify(tmp_path / "other")


def test_revoked_key_signs_nothing_any_more(site: Site, tmp_path: Path, bundle: Path, vendor: Vendor) -> None:
    """A second root without the old key: the host follows it, and refuses what the old key signs afterwards."""
    site.install(bundle)
    fresh = Holder("fresh")
    keys = {role: [fresh.key.public_key()] for role in ("root", "targets", "snapshot", "timestamp")}
    second = build_root(keys, dict.fromkeys(keys, 1), expires_at=FAR, version=2)  # type: ignore[arg-type]
    for holder in (vendor.holder, fresh):
        second = sign_root(second, holder.signer, before=vendor.roots[0])
    renewed = Vendor(fresh, [vendor.roots[0], second])
    parts = write_parts(tmp_path / "parts-2")
    renewed.build(tmp_path / "renewed", parts, "1.1.0", previous=bundle)
    assert site.install(tmp_path / "renewed").name == "1.1.0"
    vendor.build(tmp_path / "stolen", parts, "1.2.0", previous=tmp_path / "renewed")
    with pytest.raises(BundleRejected, match="signed by"):
        site.install(tmp_path / "stolen")
    unsigned = build_root(keys, dict.fromkeys(keys, 1), expires_at=FAR, version=2)  # type: ignore[arg-type]
    with pytest.raises(TrustUnusable):
        Vendor(fresh, [vendor.roots[0], sign_root(unsigned, fresh.signer)]).build(tmp_path / "x", parts)


def test_threshold_of_a_role_is_kept(tmp_path: Path, site: Site) -> None:
    """Two of two for targets: the build wants both keys, and a bundle with one signature is refused by the host."""
    one_key, two_key = Holder("one"), Holder("two")
    keys = {
        role: [one_key.key.public_key(), two_key.key.public_key()]
        for role in ("root", "targets", "snapshot", "timestamp")
    }
    thresholds = dict.fromkeys(keys, 1) | {"targets": 2}
    root = sign_root(build_root(keys, thresholds, expires_at=FAR), one_key.signer)  # type: ignore[arg-type]
    release, components = Release("vendor", (1, 0, 0), NOW), {"docs": write_parts(tmp_path / "parts") / "docs"}
    with pytest.raises(TrustUnusable, match="targets: signed by 1 of the root's keys, expected 2"):
        build_bundle(tmp_path / "x", [root], release, components, [one_key.signer], now=NOW)
    build_bundle(tmp_path / "y", [root], release, components, [one_key.signer, two_key.signer], now=NOW)
    path = tmp_path / "y/metadata/1.targets.json"
    document = json.loads(path.read_bytes())
    assert len(document["signatures"]) == 2


def test_customers_root_signs_no_software(site: Site, tmp_path: Path, vendor: Vendor) -> None:
    """The roots are apart: a release says whose it is, and that must be whose root is asked."""
    vendor.build(tmp_path / "b", write_parts(tmp_path / "parts"), owner="customer")
    with pytest.raises(BundleRejected, match="is a customer's release, signed under the vendor's root"):
        site.verify(tmp_path / "b")


def test_customers_bundle_fills_no_slot(site: Site, tmp_path: Path, vendor: Vendor) -> None:
    """Rightly signed under the customer's root: it may bring models, and never software."""
    customer = Holder("customer")
    root = make_root(customer)
    site.trust.pin_root("customer", root, hashlib.sha256(root).hexdigest())
    Vendor(customer, [root]).build(tmp_path / "b", write_parts(tmp_path / "parts"), owner="customer")
    with (
        open_bundle(tmp_path / "b", site.trust, "customer", now=NOW, remember=False) as bundle,
        pytest.raises(BundleRejected, match="software comes from the vendor alone"),
    ):
        install_bundle(site.host, bundle)
    del vendor


def test_bad_medium_is_told_from_a_bad_bundle(site: Site, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error asks for another copy; what was copied before is kept, and the next try goes on."""
    read = Medium.read_chunks

    def fail(self: Medium, name: str):  # type: ignore[no-untyped-def]
        if "kernels" in name:
            raise BundleUnreadable(f"{name}: cannot be read: Input/output error; copy the bundle again")
        yield from read(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(medium_module.Medium, "read_chunks", fail)
        with pytest.raises(BundleUnreadable, match="copy the bundle again"):
            site.install(bundle)
    kept = [path.name for path in site.host.path.rglob("*") if path.is_file()]
    assert "empty" in kept
    assert site.install(bundle).name == "1.0.0"


def test_full_disk_fails_cleanly_and_goes_on(site: Site, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known before a byte is written where it can be."""
    usage = shutil.disk_usage(bundle)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
        with pytest.raises(BundleUnreadable, match=r"MB are needed there, and 0\.0 MB are free: make room"):
            site.install(bundle)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _no_space)
        with pytest.raises(BundleUnreadable, match="the disk is full: make room there; then try again"):
            site.install(bundle)
    assert site.host.content_of("a") is None
    assert site.install(bundle).name == "1.0.0"


def _no_space(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_delta_takes_what_is_there_from_the_running_slot(
    site: Site, bundle: Path, next_bundle: Callable[..., Path]
) -> None:
    """Small on the medium, whole in the slot, every byte verified; on another host it says what is missing."""
    site.install(bundle)
    site.host.switch_to("a")
    delta = next_bundle(is_delta=True)
    carried = [path for path in (delta / "targets").rglob("*") if path.is_file()]
    assert {path.name.split(".", 1)[1] for path in carried} == {"run.py", "release.json"}
    assert site.install(delta).slot == "b"
    folder = site.host.folder_of("b")
    assert (folder / "kernels/decode.cubin").read_bytes() == FILES["kernels/decode.cubin"]
    assert (folder / "software/run.py").read_bytes() == b"print('1.1.0')\n"
    flip(site.host.folder_of("a") / "kernels/decode.cubin")
    shutil.rmtree(site.host.path / "incoming")
    with pytest.raises(BundleRejected, match="neither on the medium nor in the running slot"):
        site.install(delta)


def test_first_release_is_verified_with_openssl_alone(bundle: Path, vendor: Vendor, tmp_path: Path) -> None:
    """Nothing of ours runs before it is trusted: `openssl dgst -verify` and `sha256sum -c`."""
    vendor.holder.write(tmp_path / "keys")
    key = str(tmp_path / "keys/vendor.pub")
    command = ["openssl", "dgst", "-sha256", "-verify", key, "-signature", "SHA256SUMS.sig", "SHA256SUMS"]
    assert subprocess.run(command, cwd=bundle, capture_output=True, check=False).stdout == b"Verified OK\n"
    sums = ["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"]
    assert subprocess.run(sums, cwd=bundle, capture_output=True, check=False).returncode == 0
    flip(one(bundle, "targets/kernels/*"))
    assert subprocess.run(sums, cwd=bundle, capture_output=True, check=False).returncode == 1
    flip(bundle / "SHA256SUMS")
    assert subprocess.run(command, cwd=bundle, capture_output=True, check=False).returncode == 1


def test_build_replaces_nothing_and_takes_no_links(tmp_path: Path, vendor: Vendor) -> None:
    """A bundle is made once, of regular files."""
    parts = write_parts(tmp_path / "parts")
    vendor.build(tmp_path / "b", parts)
    with pytest.raises(FileExistsError):
        vendor.build(tmp_path / "b", parts)
    (parts / "docs/link").symlink_to("/etc/passwd")
    with pytest.raises(BundleRejected, match="symbolic link"):
        vendor.build(tmp_path / "c", parts)
    assert not (tmp_path / "c").exists()  # The next try finds nothing in its way.


@pytest.mark.parametrize("text", ["1", "1.2", "1.2.3.4", "v1.2.3", "01.2.3", "1.2.-3", "", "1.2.3\n", "1.2.9999999"])
def test_versions_are_three_plain_numbers(text: str) -> None:
    """Two spellings of one version would compare wrongly."""
    with pytest.raises(BundleRejected):
        parse_version(text)


def test_release_file_has_one_form() -> None:
    """A member more, a wrong owner, a key twice."""
    good = encode_release(Release("vendor", (1, 2, 3), NOW, ("b", "a")))
    assert parse_release(good).name == "1.2.3"
    for bad in (
        b"{}",
        good.replace(b'"owner"', b'"owner": "vendor", "owner"'),
        good.replace(b'"vendor"', b'"eve"'),
        good.replace(b'"1.2.3"', b"123"),
        good.replace(b"casemate.release/1", b"casemate.release/2"),
        b"\xff",
    ):
        with pytest.raises(BundleRejected):
            parse_release(bad)


def test_open_bundle_without_a_root_is_refused(site: Site, bundle: Path) -> None:
    """A host that was told nothing believes nobody."""
    with (
        pytest.raises(TrustUnusable, match="casemate init"),
        open_bundle(bundle, site.trust, "customer", now=NOW, remember=False),
    ):
        pass
