"""What each process may touch: the whole of it in one table.

|           | network                    | reads                                         | writes                     |
|-----------|----------------------------|-----------------------------------------------|----------------------------|
| gateway   | TCP to trusted issuers      | model folders, server certificate and key,    | gateway/, run/metrics/,    |
|           |                            | auditors' public keys                         | bodies/ if bodies are kept |
| policy    | none, or to its database   | credentials' key, admin certificate and key   | policy/definitions/        |
| engine    | none                       | its model and kernel folders, GPU devices     | nothing                    |
| auditor   | none                       | nothing                                       | audit/                     |
| authority | TCP to people's provider   | server certificate and key, credentials' key  | authority/                 |
| compiler  | none                       | model folders                                 | nothing                    |
| reader    | none                       | the log's folder and its public key           | reader/                    |
| courier   | TCP to the witnesses       | the witnesses' certificate authority          | nothing                    |
| console   | TCP to authority, gateway  | server certificate and key, its own client's  | nothing                    |
|           | and admin API              | key                                           |                            |

Everybody reads the interpreter, its libraries and our packages, as modules may be imported late. "None" is an empty network
namespace, where only the links of the supervisor, which are descriptors, lead out. The supervisor itself is not confined: it
makes keys, folders, listeners and processes, and is part of the trusted base.

A profile is plain values, made by the supervisor and enforced by `launch`.
"""

import glob
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

ConfinedRole = Literal[
    "gateway", "policy", "engine", "auditor", "authority", "compiler", "reader", "courier", "console"
]
CONFINED_ROLES: tuple[ConfinedRole, ...] = get_args(ConfinedRole)
Network = Literal["host", "none"]

MAX_OPEN_FILES = 1024
MAX_OPEN_FILES_SERVING = 65_536
"""Of gateway and authority: far above their own bounds on connections, which are to refuse before descriptors run out."""

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store")
SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/ssl/openssl.cnf",
    "/usr/share/zoneinfo",
    "/usr/share/locale",
    "/dev/urandom",
    "/dev/random",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/kernel/overflowuid",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
)
_GPU_FILES = ("/proc/driver/nvidia", "/proc/devices", "/proc/modules", "/sys/bus/pci", "/sys/devices", "/sys/module")
_GPU_DEVICES = ("/dev/nvidia*", "/dev/nvidia-caps/*", "/dev/shm")  # noqa: S108 - a path to allow, not to write to
_THREAD_NAMES = "/proc/self"
"""CUDA names its threads by task/TID/comm, and does not start where it cannot. What else is there is the process's own."""


class Profile(NamedTuple):
    """What a process may reach. Paths are absolute; a path that does not exist is passed over."""

    role: ConfinedRole
    runs: tuple[str, ...]
    """Files that may be executed: the interpreter and its loader. The filter of stage two refuses even these."""
    reads: tuple[str, ...]
    lists: tuple[str, ...]
    """Folders of which names may be listed, here and below, but no file read: import roots."""
    writes: tuple[str, ...]
    """Folders in which files may be made, changed and removed. The launcher makes them, mode 0700."""
    devices: tuple[str, ...]
    """May be written to, and asked what drivers answer (ioctl)."""
    connects: tuple[int, ...]
    """TCP ports that may be connected to."""
    network: Network
    max_open_files: int
    uses_gpu: bool

    def encode(self) -> dict[str, Any]:
        """As JSON has it."""
        return self._asdict()

    @classmethod
    def decode(cls, document: dict[str, Any]) -> "Profile":
        """Back from JSON, where tuples are lists."""
        fields: dict[str, Any] = {
            key: tuple(item) if isinstance(item, list) else item for key, item in document.items()
        }
        return cls(**fields)


class Code(NamedTuple):
    """Where the program itself lies."""

    packages: tuple[Path, ...]
    """Our own top-level packages, as folders. Their parent is not read: in a clone it holds the state folder."""
    library_path: tuple[str, ...] = ()
    """Folders of LD_LIBRARY_PATH and PYTHONPATH that the processes get."""


class Places(NamedTuple):
    """The paths and ports of one appliance, as its configuration has them."""

    state: Path
    models: tuple[Path, ...]
    """The engine's own folder for an engine, all folders for a gateway."""
    definitions: Path
    """Folder of the definitions' database."""
    credentials_key: Path
    tls_files: tuple[Path, ...]
    authority_port: int
    database_port: int
    """Of a database server; 0 where the definitions lie in a file."""
    issuer_files: tuple[Path, ...]
    """Of issuers elsewhere: their keys, or who vouches for where those are."""
    issuer_ports: tuple[int, ...]
    uses_gpu: bool
    recipient_files: tuple[Path, ...] = ()
    """Public keys of the auditors who may open sealed bodies; none where no bodies are kept."""
    witness_ports: tuple[int, ...] = ()
    witness_files: tuple[Path, ...] = ()
    """The certificate authority of the witnesses' listeners, or the machine's."""
    upstream_ports: tuple[int, ...] = ()
    """Of the provider by which people sign in."""
    upstream_files: tuple[Path, ...] = ()
    collector_ports: tuple[int, ...] = ()
    collector_files: tuple[Path, ...] = ()
    """The collector's certificate authority, or the machine's."""
    console_ports: tuple[int, ...] = ()
    """Of authority, gateway and admin API; none where there is no console."""
    console_key: Path | None = None
    """By which the console says who it is to the authority."""
    console_key_set: Path | None = None
    """The public half, by which policy registers it."""
    database_files: tuple[Path, ...] = ()
    """Who vouches for the database server, and by what policy shows who it is."""
    kernels: tuple[Path, ...] = ()
    """Folders of compiled kernels, and files of a KV cache's scales, of an engine."""


def build_profile(role: ConfinedRole, places: Places, code: Code) -> Profile:
    """The row of the table above for one process."""
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    connects: tuple[int, ...] = ()
    network: Network = "none"
    uses_gpu = False
    match role:
        case "gateway":
            network = "host"
            outwards = (*filter(None, (places.authority_port,)), *places.issuer_ports, *places.collector_ports)
            connects = tuple(dict.fromkeys(outwards))
            reads = (
                *places.issuer_files,
                *places.collector_files,
                *_with_link_targets(places.models, places.state),
                *places.tls_files,
            )
            writes = (places.state / "gateway", places.state / "run" / "metrics")
            if places.recipient_files:
                reads = (*reads, *places.recipient_files)
                writes = (*writes, places.state / "bodies")
        case "compiler":
            reads = _with_link_targets(places.models, places.state)
        case "policy":
            network = "host" if places.database_port else "none"
            connects = (places.database_port,) if places.database_port else ()
            reads = (
                places.credentials_key,
                *places.tls_files,
                *places.database_files,
                *filter(None, (places.console_key_set,)),
            )
            writes = (places.definitions,)
        case "engine":
            reads = _with_link_targets((*places.models, *places.kernels), places.state)
            uses_gpu = places.uses_gpu
        case "auditor":
            writes = (places.state / "audit",)
        case "reader":
            reads = (places.state / "audit" / "log", places.state / "audit" / "log.vkey")
            writes = (places.state / "reader",)
        case "courier":
            network = "host"
            connects = places.witness_ports
            reads = places.witness_files
        case "console":
            network = "host"
            connects = places.console_ports
            reads = (*places.tls_files, *filter(None, (places.console_key,)))
        case "authority":
            network = "host"
            connects = places.upstream_ports
            reads = (places.credentials_key, *places.tls_files, *places.upstream_files)
            writes = (places.state / "authority",)
    gpu_files = _GPU_FILES if uses_gpu else ()
    return Profile(
        role=role,
        runs=find_interpreter(),
        reads=(*find_code_files(code), *SYSTEM_FILES, *gpu_files, *map(str, reads)),
        lists=tuple(dict.fromkeys(str(package.parent) for package in code.packages)),
        writes=tuple(map(str, writes)),
        devices=("/dev/null", *((*_expand(_GPU_DEVICES), _THREAD_NAMES) if uses_gpu else ())),
        connects=connects,
        network=network,
        max_open_files=MAX_OPEN_FILES_SERVING if role in ("gateway", "authority") else MAX_OPEN_FILES,
        uses_gpu=uses_gpu,
    )


def find_interpreter() -> tuple[str, ...]:
    """The interpreter and the loader that the kernel opens for it, which is mapped into this very process."""
    with open("/proc/self/maps") as maps:
        mapped = {fields[5] for fields in (line.split(maxsplit=5) for line in maps) if len(fields) > 5}
    loaders = sorted(path.strip() for path in mapped if os.path.basename(path).startswith("ld-"))
    return (os.path.realpath(sys.executable), *loaders)


def find_code_files(code: Code) -> tuple[str, ...]:
    """The interpreter's modules, libraries, our packages."""
    found = [*_LIBRARIES, *_linker_folders(), *code.library_path, *map(str, code.packages)]
    for prefix in (sys.prefix, sys.base_prefix):
        found += [f"{prefix}/pyvenv.cfg", f"{prefix}/bin", f"{prefix}/lib", f"{prefix}/lib64"]
    found += [
        path for name, path in sysconfig.get_paths().items() if name in ("stdlib", "platstdlib", "purelib", "platlib")
    ]
    return tuple(dict.fromkeys(found))


def _linker_folders() -> list[str]:
    """Where this system's linker looks besides (ld.so(8)): some GPU drivers lie there."""
    lines = [
        line.strip() for path in _expand(("/etc/ld.so.conf.d/*.conf",)) for line in Path(path).read_text().splitlines()
    ]
    return [line for line in lines if line.startswith("/")]


def _expand(patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(path for pattern in patterns for path in glob.glob(pattern)))


def _with_link_targets(folders: tuple[Path, ...], state: Path) -> tuple[Path, ...]:
    """The folders, and the files that links in them lead to (a download cache's layout), unless these lie in our state."""
    found: list[Path] = list(folders)
    for folder in folders:
        for link in sorted(folder.iterdir()) if folder.is_dir() else ():
            target = link.resolve() if link.is_symlink() else link
            if target != link and target.is_file() and not target.is_relative_to(state.resolve()):
                found += [*_hops(link), target]
    return tuple(dict.fromkeys(found))


def _hops(link: Path) -> Iterator[Path]:
    """Each place that a link's own text leads to, one after the other: a private root has to show them all."""
    while link.is_symlink():
        link = Path(os.path.normpath(link.parent / os.readlink(link)))
        yield link
