"""Switching between slots: what proves itself stays, what does not goes back, and going back needs leave."""

import datetime
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from security.bundles.downgrade import Step, countersign_downgrade, sign_downgrade, verify_downgrade
from security.bundles.slots import BACKUPS, Host
from security.bundles.switching import State, recover, roll_back, upgrade
from security.errors import BundleRejected, ModelNotApproved, SwitchFailed
from tests.support.controls import control
from tests.support.stewardship import Stewardship
from tests.unit.security.bundles.conftest import NOW, Site

HOUR = datetime.timedelta(hours=1)


class Service:
    """A service that writes its release into its state, as a migration would, and may not become ready."""

    def __init__(self, host: Host, state: Path) -> None:
        self.host, self.state = host, state
        self.log: list[str] = []
        self.bad: set[str] = set()

    def stop(self) -> None:
        self.log.append("stop")

    def start(self) -> None:
        content = self.host.current()
        assert content is not None
        self.log.append(f"start {content.name}")
        (self.state / "registry").mkdir(parents=True, exist_ok=True)
        (self.state / "registry" / "db").write_text(f"migrated by {content.name}")
        (self.state / "audit").mkdir(exist_ok=True)
        with (self.state / "audit" / "log").open("a") as log:
            log.write(f"{content.name}\n")

    def wait_ready(self) -> None:
        content = self.host.current()
        if content is not None and content.name in self.bad:
            raise SwitchFailed("not ready within 1 s")


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A state folder of which the registry goes back with a release, and the log does not."""
    (tmp_path / "state").mkdir(exist_ok=True)
    return State(tmp_path / "state", ("registry", "file"))


@pytest.fixture
def service(site: Site, state: State) -> Service:
    """The service on the host."""
    return Service(site.host, state.path)


@pytest.fixture
def running(site: Site, service: Service, state: State, bundle: Path, next_bundle: Callable[..., Path]) -> Service:
    """Release 1.0.0 runs, 1.1.0 is installed."""
    site.install(bundle)
    upgrade(site.host, service, state)
    site.install(next_bundle())
    service.log.clear()
    return service


def test_upgrade_switches_after_the_service_ended(site: Site, running: Service, state: State) -> None:
    """Stop (which drains), link, start, ready."""
    assert upgrade(site.host, running, state).name == "1.1.0"
    assert running.log == ["stop", "start 1.1.0"]
    assert site.host.current_slot() == "b"
    assert (state.path / "registry" / "db").read_text() == "migrated by 1.1.0"


@control("3.11.3", "CM-3(2)")
def test_release_that_does_not_become_ready_is_taken_back(site: Site, running: Service, state: State) -> None:
    """The old one runs again, on the state that it knows; the log keeps what happened meanwhile."""
    running.bad.add("1.1.0")
    (state.path / "file").write_text("kept")
    with pytest.raises(SwitchFailed, match="not ready within 1 s; the release of before runs again"):
        upgrade(site.host, running, state)
    assert running.log == ["stop", "start 1.1.0", "stop", "start 1.0.0"]
    assert (state.path / "registry" / "db").read_text() == "migrated by 1.0.0"
    assert (state.path / "file").read_text() == "kept"
    assert (state.path / "audit" / "log").read_text().splitlines() == ["1.0.0", "1.1.0", "1.0.0"]
    assert not (site.host.path / "transition.json").exists()


def test_a_state_that_cannot_be_copied_leaves_the_release_of_before_running(
    site: Site, running: Service, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in an upgrade stopped the service and left it stopped. The half copy goes, as it is what fills the disk."""

    def copy_a_part(source: Path, target: Path, **_options: object) -> None:
        target.mkdir()
        raise shutil.Error([(str(source / "db"), str(target / "db"), "[Errno 28] No space left on device")])

    monkeypatch.setattr(shutil, "copytree", copy_a_part)
    with pytest.raises(SwitchFailed, match=r"registry/db: .*No space left on device; the release of before runs again"):
        upgrade(site.host, running, state)
    assert running.log == ["stop", "stop", "start 1.0.0"]
    assert site.host.current_slot() == "a"
    assert not (site.host.path / "transition.json").exists()
    assert not list((site.host.path / BACKUPS).glob(".partial-*"))


@control("3.11.3", "CM-2(3)")
def test_rollback_restores_the_state_of_before(site: Site, running: Service, state: State) -> None:
    """What 1.1.0 made of the registry is not what 1.0.0 gets."""
    (state.path / "file").write_text("as 1.0.0 had it")
    upgrade(site.host, running, state)
    (state.path / "file").write_text("as 1.1.0 has it")
    running.log.clear()
    seen: list[str] = []
    start = running.start

    def look_and_start() -> None:
        seen.append((state.path / "file").read_text())
        start()

    running.start = look_and_start  # type: ignore[method-assign]
    assert roll_back(site.host, running, state).name == "1.0.0"
    assert seen == ["as 1.0.0 had it"]
    assert running.log == ["stop", "start 1.0.0"]


def test_rollback_that_fails_is_taken_back_too(site: Site, running: Service, state: State) -> None:
    """Then the newer release runs on, with its own state."""
    upgrade(site.host, running, state)
    (state.path / "file").write_text("as 1.1.0 has it")
    running.bad.add("1.0.0")
    with pytest.raises(SwitchFailed):
        roll_back(site.host, running, state)
    assert site.host.current_slot() == "b"
    assert (state.path / "file").read_text() == "as 1.1.0 has it"


def test_nothing_to_switch_to_is_said(site: Site, service: Service, state: State, bundle: Path) -> None:
    """An empty slot, before anything is stopped."""
    site.host.prepare()
    with pytest.raises(BundleRejected, match="other slot is empty"):
        upgrade(site.host, service, state)
    site.install(bundle)
    upgrade(site.host, service, state)
    service.log.clear()
    for switch in (upgrade, roll_back):
        with pytest.raises(BundleRejected, match="other slot is empty"):
            switch(site.host, service, state)
    assert service.log == []


def test_interrupted_switch_blocks_the_next_until_it_is_taken_back(
    site: Site, running: Service, state: State, next_bundle: Callable[..., Path]
) -> None:
    """As after a power cut: nobody guesses which release is good."""

    def die() -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "wait_ready", die)
        with pytest.raises(KeyboardInterrupt):
            upgrade(site.host, running, state)
    assert site.host.current_slot() == "b"
    with pytest.raises(BundleRejected, match="casemate recover"):
        upgrade(site.host, running, state)
    with pytest.raises(BundleRejected, match="casemate recover"):
        site.install(next_bundle(name="again"))  # It would fill the slot that recovery goes back to.
    taken_back = recover(site.host, None, state)
    assert taken_back is not None
    assert site.host.current_slot() == "a"
    assert (state.path / "registry" / "db").read_text() == "migrated by 1.0.0"
    assert recover(site.host, None, state) is None
    assert upgrade(site.host, running, state).name == "1.1.0"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_copies_stays_its_owners(site: Site, running: Service, state: State) -> None:
    """Root upgrades, another user serves: backup and restored state belong to that user, and slots can be read by all."""
    for path in (state.path / "registry", state.path / "registry" / "db"):
        os.chown(path, 65534, 65534)
    (state.path / "file").write_text("kept")
    os.chown(state.path / "file", 65534, 65534)
    running.bad.add("1.1.0")
    with pytest.raises(SwitchFailed):
        upgrade(site.host, running, state)
    for name in ("registry", "registry/db", "file"):
        assert (state.path / name).stat().st_uid == 65534
    assert site.host.folder_of("a").parent.stat().st_mode & 0o005 == 0o005


STEP = Step("aa", "bb", "1.0.0")


@control("3.1.4", "3.4.5", "AC-3(2)", "AC-5", "AC-6(1)", "CM-3(1)", "CM-5")
def test_leave_to_go_back_needs_two_operators(tmp_path: Path) -> None:
    """Two people, this very step, in time."""
    people = Stewardship()
    roles = people.roles
    leave = sign_downgrade(STEP, roles, people.signer("olga"), until=NOW + HOUR)
    with pytest.raises(BundleRejected, match="given by 1 operators, expected 2"):
        verify_downgrade(leave, STEP, roles, now=NOW)
    again, _ = countersign_downgrade(leave, roles, people.signer("olga"))
    with pytest.raises(BundleRejected, match="given by 1 operators"):
        verify_downgrade(again, STEP, roles, now=NOW)
    with pytest.raises(ModelNotApproved, match="ada is not operator"):
        countersign_downgrade(leave, roles, people.signer("ada"))
    both, person = countersign_downgrade(leave, roles, people.signer("omar"))
    assert person.name == "omar"
    assert verify_downgrade(both, STEP, roles, now=NOW) == ("olga", "omar")
    with pytest.raises(BundleRejected, match="ended on"):
        verify_downgrade(both, STEP, roles, now=NOW + 2 * HOUR)
    for other in (Step("ab", "bb", "1.0.0"), Step("aa", "ba", "1.0.0"), Step("aa", "bb", "1.0.1")):
        with pytest.raises(BundleRejected, match="another step"):
            verify_downgrade(both, other, roles, now=NOW)
    for rubbish in (b"", b"{}", both[:-20], both.replace(b"e", b"f", 1)):
        with pytest.raises(BundleRejected):
            verify_downgrade(rubbish, STEP, roles, now=NOW)
