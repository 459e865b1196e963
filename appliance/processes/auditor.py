"""The auditor's process: one thread that reads all links, makes what arrived durable and answers; another publishes.

What always holds: an I/O error of the log ends the process before anything is acknowledged; it is started again and recovers
from what is on disk.
"""

import gc
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import cast

import structlog

from appliance.auditor.alerts import raise_alert
from appliance.auditor.clock_watch import verify_floor
from appliance.auditor.cosigning import Witnessing
from appliance.auditor.history import read_backwards
from appliance.auditor.ledger import Clock, Ledger
from appliance.auditor.peer import Peer, Send
from appliance.auditor.service import AuditorService
from appliance.auditor.stewardship import Custody
from appliance.auditor.watches import Limits
from appliance.auditor.witnesses import parse_witnesses
from appliance.processes.niceness import take_short_turns
from appliance.processes.polling import LinkEnded, LinkOpened, PolledLink, PollingMember, Received
from audit.append import LogWriter
from audit.errors import AuditMisconfigured, AuditUnavailable, StorageFailed
from audit.reader import STATE
from audit.reserve import Reserve
from audit.rotation import load_predecessor
from audit.settings import AuditSettings

log = structlog.get_logger(__name__)

RECEIPT_SLACK_S = 2.0
TURN_INTERVAL_S = 0.01
EXIT_STORAGE_FAILED = 74
"""sysexits.h EX_IOERR. The supervisor starts the auditor again."""


def serve(member: PollingMember) -> None:
    """Run until drained.

    Raises: AuditMisconfigured when the log cannot be opened; SystemExit when the disk failed while running.
    """
    settings = member.config.audit
    folder = member.config.state_path / "audit"
    take_short_turns()
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publisher")
    _verify_origin(folder, settings.origin)
    witnesses = parse_witnesses(settings.witnesses)
    writer = open_writer(folder, settings, executor)
    try:
        clock = Clock(time.monotonic, lambda: time.time_ns() // 1_000_000)
        predecessor = load_predecessor(folder / "log")
        verify_floor(read_backwards(writer, predecessor), clock.utc_ms())
        reserve = Reserve(folder / "log" / STATE / "reserve", settings.reserve_bytes)
        service = AuditorService(
            Ledger(writer, reserve, clock),
            cast(Send, member.send),  # Every peer here is a link of this member.
            clock,
            cut=cast(Callable[[Peer], None], member.end),
            count_wait_s=settings.count_wait_ms / 1000,
            receipts_kept=settings.receipts_kept,
            receipt_wait_s=settings.checkpoint_interval_ms / 1000 + RECEIPT_SLACK_S,
            limits=Limits(
                settings.space_warning_bytes,
                settings.stranger_records_per_minute,
                settings.token_records_per_minute,
                tuple(key for key, _ in witnesses),
                settings.witness_max_age_s,
                settings.witness_quorum,
            ),
            witnessing=Witnessing(
                [(key, address is not None) for key, address in witnesses],
                settings.witness_quorum,
                settings.witness_interval_s,
                executor,
            ),
            custody=Custody(settings.body_retention_days, settings.overseeing_tenant),
            predecessor=predecessor,
            progress=member.heartbeat,
        )
        writer.prepare()
        service.start()
        log.info("log_open", folder=str(folder / "log"), records=writer.size, cut_off_bytes=writer.torn_bytes)
        gc.collect()
        gc.freeze()  # What lives as long as the process is not walked again: a full collection took 20 ms.
        member.ready(log=str(folder / "log"), log_vkey=writer.key.encode(), records=str(writer.size))
        _run(member, service)
        service.stop()
        member.flush()
    except StorageFailed as failure:
        raise_alert("log_storage_failed", f"{failure}: the auditor ends, and recovers from disk")
        raise SystemExit(EXIT_STORAGE_FAILED) from failure
    finally:
        writer.close()
        executor.shutdown()


def _verify_origin(folder: Path, origin: str) -> None:
    """Refuse to begin a second tree under the name of the log that was rotated away."""
    predecessor = load_predecessor(folder / "log")
    if predecessor is not None and predecessor.key.name == origin and not (folder / "log").exists():
        raise AuditMisconfigured(f"audit.origin: {origin} is the name of the log before; a new log needs a new one")


def open_writer(folder: Path, settings: AuditSettings, executor: Executor | None = None) -> LogWriter:
    """Open the log below the auditor's folder.

    Raises: AuditMisconfigured.
    """
    try:
        return LogWriter(
            folder / "log",
            folder / "log.key",
            origin=settings.origin,
            checkpoint_interval_ms=settings.checkpoint_interval_ms,
            segment_bytes=settings.segment_bytes,
            with_mldsa=settings.mldsa_cosignature,
            executor=executor,
        )
    except AuditUnavailable as error:
        raise AuditMisconfigured(f"the log cannot be opened: {error}") from error


def _run(member: PollingMember, service: AuditorService) -> None:
    links: set[PolledLink] = set()
    deadline_s: float | None = None
    next_turn_s, owes_turn = 0.0, False
    while True:
        events = member.poll(min(service.wait_s, TURN_INTERVAL_S) if owes_turn else service.wait_s)
        for event in events:
            match event:
                case Received(link, message):
                    service.received(link, message)
                case LinkOpened(link):
                    links.add(link)
                    service.link_opened(link)
                case LinkEnded(link):
                    links.discard(link)
                    service.link_ended(link)
        # What requests wait for comes first: what only time makes due is not looked at thousands of times a second.
        owes_turn = bool(events) and time.monotonic() < next_turn_s
        if owes_turn:
            service.commit()
        else:
            service.turn()
            next_turn_s = time.monotonic() + TURN_INTERVAL_S
        member.flush()
        if member.draining:
            deadline_s = deadline_s or time.monotonic() + member.drain_timeout_s
            # The supervisor's link stays to the end; it drains the auditor last.
            if (not events and all(link.peer_role == "supervisor" for link in links)) or time.monotonic() >= deadline_s:
                return
