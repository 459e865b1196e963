"""Supervisor ↔ every process it starts, over a socket pair inherited at exec.

The supervisor connects processes: it makes a socket pair for each edge, and hands one end to each side with a `GrantLink`.
Nothing listens on a path, so nothing else can connect.
"""

from typing import Annotated, Literal, get_args

import msgspec

Role = Literal[
    "supervisor", "gateway", "policy", "engine", "auditor", "authority", "compiler", "reader", "courier", "console"
]
ROLES: tuple[Role, ...] = get_args(Role)

MAX_ISSUER_KEYS_BYTES = 128 << 10


class Assign(msgspec.Struct, frozen=True, tag="assign"):
    """First message: who the process is, and the configuration, read once by the supervisor so that all see the same bytes."""

    role: Role
    instance: int
    configuration: Annotated[bytes, msgspec.Meta(max_length=1 << 20)]
    configuration_dir: str
    """Folder that relative paths in the configuration start from."""
    single_user: bool
    """All processes run as one user; said in `/ready`."""
    statement: str = ""
    """Digest of the running statement, which every answer names."""
    tpm: str = ""
    """Whether a TPM vouches for it; said in `/ready`."""


class GrantLink(msgspec.Struct, frozen=True, tag="grant_link"):
    """A connected socket to a peer comes with this message as its one file descriptor."""

    role: Role
    instance: int
    pid: int
    uid: int
    """What the kernel must say of the sender of the peer's first bytes; anything else is refused."""


class GrantListener(msgspec.Struct, frozen=True, tag="grant_listener"):
    """A bound, listening TCP socket comes with this message."""

    host: str
    port: int
    is_own: bool
    """False for that of a sibling, which may be away."""
    count: int
    """How many come in all."""


class ProcessState(msgspec.Struct, frozen=True, array_like=True):
    """One process as the supervisor sees it."""

    role: Role
    instance: int
    state: Literal["starting", "ready", "restarting", "draining", "failed"]
    restarts: int


class ProcessStates(msgspec.Struct, frozen=True, tag="states"):
    """All processes as the supervisor sees them; sent at every change and once a second."""

    processes: list[ProcessState]


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Take nothing new, finish what is open, then exit 0."""

    timeout_s: float


class RenewCertificate(msgspec.Struct, frozen=True, tag="renew_certificate"):
    """To processes that listen: serve new connections with this certificate from now on."""

    certificate: Annotated[bytes, msgspec.Meta(max_length=1 << 20)]
    """PEM with its chain."""
    key: Annotated[bytes, msgspec.Meta(max_length=64 << 10)]
    client_authorities: Annotated[bytes, msgspec.Meta(max_length=1 << 20)]
    """PEM; empty where none are configured. New ones are added; one that is to go needs a restart."""

    def __repr__(self) -> str:
        return "RenewCertificate(<hidden>)"


class IssuerKeys(msgspec.Struct, frozen=True, tag="issuer_keys"):
    """To gateways: the file of an issuer's keys is another; whether it is to be believed, they say."""

    issuer: Annotated[str, msgspec.Meta(max_length=512)]
    data: Annotated[bytes, msgspec.Meta(max_length=MAX_ISSUER_KEYS_BYTES)]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The process can do its work. `facts` are shown by the supervisor (address, model, key)."""

    facts: dict[str, str]


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat", gc=False):
    """Sent by the process's main loop itself, so that a loop that hangs is silent."""

    detail: str = ""


class LinkLost(msgspec.Struct, frozen=True, tag="link_lost"):
    """A link ended though the peer may live: ask for a new one."""

    role: Role
    instance: int
    pid: int
    """The peer's, as granted: if another process has taken its place since, a new link was granted already."""


class CannotStart(msgspec.Struct, frozen=True, tag="cannot_start"):
    """The process refuses to start, and starting it again would not help. The message is for the operator."""

    message: str


SupervisorToProcess = Assign | GrantLink | GrantListener | ProcessStates | Drain | RenewCertificate | IssuerKeys
ProcessToSupervisor = Ready | Heartbeat | LinkLost | CannotStart
