"""Stage one: `python -m security.sandbox.launch PLAN -- PROGRAM…` confines itself and becomes PROGRAM. Not for people.

    (1) close what was not meant to be inherited   (2) an empty network, a file system of its own   (3) a user of its own
    (4) limits, no core dumps   (5) no new privileges   (6) no capabilities   (7) Landlock   (8) exec

Namespaces come before Landlock, which refuses mounts; capabilities go after both because they need them. Where root may not make
namespaces itself, (3) comes before (2): the user then makes a user namespace, as a plain user's launcher does.

PLAN is JSON from the supervisor. What was applied is handed to PROGRAM as `--confinement`, which takes the second stage from
there: it also knows whether a step that failed stops the start, and can tell the supervisor so.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from security.sandbox import landlock, mounts, namespaces, privileges
from security.sandbox.abilities import Platform
from security.sandbox.profiles import ConfinedRole, Network, Profile
from security.sandbox.users import User, become_user

EXIT_CANNOT_CONFINE = 77


class Plan(NamedTuple):
    """What to do: the profile, the descriptors to keep, and what was found of the platform."""

    profile: Profile
    kept_fds: tuple[int, ...]
    """Of these, those that are open stay, over the exec too."""
    platform: Platform
    strict: bool
    """Whether the program must refuse to start if a step fails. Passed on."""
    user: User | None = None
    """Who the process is to be; whoever starts it if None."""

    def encode(self) -> str:
        """The launcher's argument."""
        parts = {"profile": self.profile.encode(), "platform": self.platform.encode()}
        return json.dumps({**self._asdict(), **parts})

    @classmethod
    def decode(cls, text: str) -> "Plan":
        """Back from the argument; written by our own supervisor."""
        document: dict[str, Any] = json.loads(text)
        profile, platform = Profile.decode(document.pop("profile")), Platform(**document.pop("platform"))
        user, kept_fds = User.decode(document.pop("user")), tuple(document.pop("kept_fds"))
        return cls(profile=profile, platform=platform, user=user, kept_fds=kept_fds, **document)


class Confined(NamedTuple):
    """What stage one did, for stage two and for the operator."""

    role: ConfinedRole
    network: Network
    uses_gpu: bool
    applied: tuple[str, ...]
    failed: tuple[str, ...]
    platform: Platform
    strict: bool
    connects: bool = False
    """It may begin connections itself."""

    def encode(self) -> str:
        """The program's argument `--confinement`."""
        return json.dumps({**self._asdict(), "platform": self.platform.encode()})

    @classmethod
    def decode(cls, text: str) -> "Confined":
        """Back from the argument; written by our own launcher."""
        document: dict[str, Any] = json.loads(text)
        document |= {
            "platform": Platform(**document["platform"]),
            "applied": tuple(document["applied"]),
            "failed": tuple(document["failed"]),
        }
        return cls(**document)


def wrap(command: list[str], plan: Plan) -> list[str]:
    """The command line that runs `command` confined."""
    return [*interpreter(), "-m", "security.sandbox.launch", plan.encode(), "--", *command]


def interpreter() -> list[str]:
    """This interpreter, told what it was told itself about imports: what it starts must not find more than it does.

    With `site` the host's own packages would be importable, and each `.pth` file among them runs code before ours.
    """
    return [sys.executable, *(["-S"] if sys.flags.no_site else []), *(["-B"] if sys.dont_write_bytecode else [])]


def confine(plan: Plan) -> Confined:
    """Steps (1) to (7), for this process and what it becomes. A step that fails is named in the result."""
    applied: list[str] = []
    failed: list[str] = []
    for name, step in _steps(plan):
        try:
            applied += step()
        except OSError as error:
            failed.append(f"{name}: {error}")
    return Confined(
        role=plan.profile.role,
        network=plan.profile.network,
        uses_gpu=plan.profile.uses_gpu,
        connects=bool(plan.profile.connects),
        applied=tuple(applied),
        failed=tuple(failed),
        platform=plan.platform,
        strict=plan.strict,
    )


def _steps(plan: Plan) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """Each gives what it applied, in words."""
    profile, platform, user = plan.profile, plan.platform, plan.user
    has_power = privileges.may_administer()
    yield "descriptors", lambda: privileges.close_all_but(plan.kept_fds)
    if user is None:
        yield "folders", lambda: _make_folders(profile.writes)
    elif not has_power:
        yield "own user", lambda: _become(user)
    yield "namespaces", lambda: _leave_host(profile, platform)
    if user is not None and has_power:
        yield "own user", lambda: _become(user)
    yield "limits", lambda: privileges.limit_resources(profile.max_open_files)
    yield "no new privileges", privileges.forbid_new_privileges
    yield "no capabilities", lambda: privileges.drop_capabilities((*profile.writes, *profile.reads))
    if platform.landlock_abi:
        yield "landlock", lambda: landlock.restrict(profile, platform.landlock_abi)


def _leave_host(profile: Profile, platform: Platform) -> list[str]:
    """Step (2), as far as it goes here."""
    network = profile.network != "host" and not platform.no_empty_network
    mounted = not platform.no_private_root
    applied: list[str] = []
    if network or mounted:
        namespaces.enter_namespaces(network=network, mounts=mounted)
    if network:
        applied.append("an empty network")
    if mounted:
        applied += mounts.enter_private_root(profile)
    return applied


def _become(user: User) -> list[str]:
    try:
        return become_user(user)
    except OSError as error:  # As root it would go on with more than it may have.
        _complain(f"uid {user.uid}: {error}")
        raise SystemExit(EXIT_CANNOT_CONFINE) from error


def _make_folders(folders: Iterable[str]) -> list[str]:
    for folder in folders:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    return []


def main(arguments: list[str]) -> int:
    """Confine, then exec; gives an exit status only when that fails."""
    plan_text, separator, *command = arguments
    if separator != "--":
        raise SystemExit("usage: PLAN -- PROGRAM…")
    plan = Plan.decode(plan_text)
    confined = confine(plan)
    try:
        for descriptor in filter(_is_open, plan.kept_fds):
            os.set_inheritable(descriptor, True)
        os.execv(command[0], [*command, "--confinement", confined.encode()])  # noqa: S606 - a launcher's purpose
    except OSError as error:
        _complain(f"{command[0]} cannot be executed: {error}")
    return EXIT_CANNOT_CONFINE


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _complain(reason: str) -> None:
    sys.stderr.write(json.dumps({"level": "error", "event": "cannot_confine", "reason": reason}) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
