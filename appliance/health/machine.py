"""The machine itself: processor, memory, GPU, clock, entropy, disk, kernel."""

import datetime
import os
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from appliance.health.finding import Finding
from appliance.models.places import open_trust, utc_now
from appliance.statement.measuring import NONE, describe_gpus
from security.errors import SecurityFault, TpmUnavailable
from security.tpm.attestation_key import key_digest
from security.tpm.quoting import read_key
from security.tpm.settings import TpmSettings

_MIN_MEMORY_BYTES = 4 << 30
_MIN_FREE_BYTES = 2 << 30
_LEAST_YEAR = 2025
_CLOCK_TOLERANCE = datetime.timedelta(minutes=1)
_CPU_FLAGS = ("avx2", "avx512f", "amx_bf16")


def examine_machine(state: Path, tpm: TpmSettings) -> Iterator[Finding]:
    """Everything that does not depend on the configuration but for where the state lies."""
    yield _examine_processor()
    yield _examine_memory()
    yield _examine_gpu()
    yield _examine_clock(state)
    yield _examine_entropy()
    yield _examine_tpm(tpm)
    yield _examine_disk(state)
    yield Finding("kernel", "ok", f"{platform.system()} {platform.release()}")


def _examine_processor() -> Finding:
    flags = _read(Path("/proc/cpuinfo")).partition("flags")[2].partition("\n")[0].split()
    present = [flag for flag in _CPU_FLAGS if flag in flags]
    words = f"{len(os.sched_getaffinity(0))} cores for us, {platform.machine()}, {', '.join(present) or 'no vector extensions'}"
    return Finding("processor", "ok" if present else "note", words)


def _examine_memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    words = f"{total / 2**30:.1f} GiB"
    if total < _MIN_MEMORY_BYTES:
        return Finding(
            "memory", "bad", f"{words}: less than {_MIN_MEMORY_BYTES >> 30} GiB are not enough for any model"
        )
    return Finding("memory", "ok", words)


def _examine_gpu() -> Finding:
    gpu, driver = describe_gpus()
    if gpu == NONE:
        return Finding("gpu", "note", "none: models run on the processor")
    return Finding("gpu", "ok", f"{gpu}; {driver}")


def _examine_clock(state: Path) -> Finding:
    now = utc_now()
    shown = f"{now:%Y-%m-%d %H:%M} UTC"
    if now.year < _LEAST_YEAR:
        return Finding("clock", "bad", f"{shown}: this is in the past; certificates and signatures are judged by it")
    try:
        floor = open_trust(state).clock_floor()
    except SecurityFault as fault:
        return Finding("clock", "bad", str(fault))
    if floor is not None and now < floor:
        return Finding(
            "clock", "bad", f"{shown}: this host was already used on {floor:%Y-%m-%d %H:%M} UTC; set the clock"
        )
    signed = _last_checkpoint(state)
    if signed is not None and now < signed - _CLOCK_TOLERANCE:
        return Finding(
            "clock", "bad", f"{shown}: the log was written to until {signed:%Y-%m-%d %H:%M} UTC; set the clock"
        )
    return Finding("clock", "ok", shown)


def _last_checkpoint(state: Path) -> datetime.datetime | None:
    """When the log last wrote what it signed, by the file's time, which is the clock of then."""
    try:
        at = (state / "audit" / "log" / "checkpoint").stat().st_mtime
    except OSError:
        return None
    return datetime.datetime.fromtimestamp(at, datetime.UTC)


def _examine_tpm(settings: TpmSettings) -> Finding:
    if settings.quote == "off":
        return Finding("tpm", "note", "not asked: tpm.quote is off")
    try:
        return Finding(
            "tpm", "ok", f"quotes the running statement, by key sha256:{key_digest(read_key(Path(settings.device)))}"
        )
    except TpmUnavailable as error:
        return Finding(
            "tpm",
            "bad" if settings.quote == "required" else "note",
            f"{error}: nobody but this host vouches for its running statement",
        )


def _examine_entropy() -> Finding:
    started = time.monotonic()
    try:
        os.getrandom(32, os.GRND_NONBLOCK)
    except BlockingIOError:
        return Finding("entropy", "bad", "the kernel's generator is not seeded yet: keys cannot be made")
    return Finding("entropy", "ok", f"the kernel's generator is seeded ({(time.monotonic() - started) * 1e6:.0f} µs)")


def _examine_disk(state: Path) -> Finding:
    place = next(path for path in (state, *state.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    words = f"{free / 2**30:.1f} GiB free at {place}"
    if free < _MIN_FREE_BYTES:
        return Finding("disk", "bad", f"{words}: a full disk stops the log, and so stops answers")
    return Finding("disk", "ok", words)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
