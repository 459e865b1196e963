"""The reader's process: it may read the log's folder and cannot write it; its own folder holds the search index.

The supervisor starts it when the auditor is ready, as only then there is a log. It may be killed at any time: records are not
found meanwhile, and requests are served.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from appliance.authority.journal import Journal
from appliance.errors import StartRefused
from appliance.messages.audit import Cosigned
from appliance.processes.member import Member
from appliance.processes.memory import settle_memory
from appliance.reader.archive import Archive
from appliance.reader.service import ReaderService
from audit.errors import KeyUnusable, MalformedNote
from audit.signing_key import load_verifier_key

RECORD_TIMEOUT_S = 10.0


async def serve(member: Member) -> None:
    """Serve until drained.

    Raises: StartRefused, AuditMisconfigured.
    """
    state = member.config.state_path
    try:
        key = load_verifier_key(str(state / "audit" / "log.vkey"))
    except (KeyUnusable, MalformedNote) as error:
        raise StartRefused(f"the log's public key cannot be read: {error}") from error
    cosigned = b""

    def note(message: object) -> None:
        nonlocal cosigned
        if isinstance(message, Cosigned):
            cosigned = message.note

    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="archive")
    archive = await asyncio.get_running_loop().run_in_executor(
        executor, lambda: Archive(state / "audit" / "log", key, state / "reader" / "index.sqlite")
    )
    journal = Journal(timeout_s=RECORD_TIMEOUT_S, on_other=note)
    service = ReaderService(
        archive,
        executor,
        journal,
        overseeing_tenant=member.config.audit.overseeing_tenant,
        cosigned=lambda: cosigned,
        clock=time.monotonic,
    )
    member.on_link("auditor", journal.run)
    member.on_link("gateway", service.run)
    settle_memory()
    try:
        async with asyncio.TaskGroup() as group:  # A task that fails ends the process, which is then started again.
            tasks = [group.create_task(service.follow()), group.create_task(service.report())]
            await member.ready()
            await member.draining.wait()
            for task in tasks:
                task.cancel()
    finally:
        await asyncio.get_running_loop().run_in_executor(executor, archive.close)
        executor.shutdown()
