"""What the supervisor looks after from time to time: that nothing can leave, and that models on the disk are still those approved.

| round | when | if it fails |
|---|---|---|
| egress | at the start, then every `segments.probe_interval_s` | serving stops, the record says which address answered |
| models | every `models.reverify_interval_s` | a record and an error: what is in memory was verified, the next start will refuse |

Both work in a thread, so that the supervisor goes on watching; one at a time.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from appliance.config import Configuration, served_name_of
from appliance.config.schema import model_paths_of
from appliance.errors import StartRefused
from appliance.models.admission import admit_model, find_item
from appliance.supervisor.lifecycle import LifecycleRecorder
from audit.entry import encode_event
from audit.event_form import SUPERVISOR
from audit.events import host_event
from security.errors import ModelRejected
from security.model_signing.digests import hash_files_by
from security.model_signing.folder import ModelFolder
from security.segmentation.egress import probe_egress

log = structlog.get_logger(__name__)


class HostRounds:
    """Owner of the times of both rounds."""

    def __init__(
        self,
        configuration: Configuration,
        recorder: LifecycleRecorder,
        stop_for: Callable[[str], None],
        recorded_within_s: float = 60.0,
    ) -> None:
        """
        Args:
            stop_for: called with the reason when serving must stop.
            recorded_within_s: how long a stop waits for its record. Until the auditor answers nothing is served anyway, and one
                that is stopped while it starts would never write why.
        """
        self._configuration = configuration
        self._recorder = recorder
        self._stop_for = stop_for
        self._recorded_within_s = recorded_within_s

    async def run(self) -> None:
        """Go round for ever; to be cancelled."""
        await asyncio.gather(self._test_egress(), self._verify_models())

    async def _test_egress(self) -> None:
        settings = self._configuration.segments
        while settings.probes:
            tested = await asyncio.to_thread(probe_egress, settings)
            answered = ", ".join(tested.answered)
            kind = "egress_open" if tested.answered else "egress_tested"
            recorded = asyncio.Event()
            self._record(kind, "egress", "none", {"tried": tested.num_tried, "answered": answered}, recorded.set)
            if tested.answered:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(recorded.wait(), self._recorded_within_s)
                self._stop_for(f"segments.probes: {answered} answered: what must not leave this host can leave it")
                return
            await asyncio.sleep(settings.probe_interval_s)

    async def _verify_models(self) -> None:
        while True:
            await asyncio.sleep(self._configuration.models.reverify_interval_s)
            for engine in self._configuration.engines:
                for path in model_paths_of(engine):
                    await self._verify_model(path, served_name_of(engine))

    async def _verify_model(self, model_path: Path, name: str) -> None:
        """Evidence and every byte on the disk, by one thread, so that engines keep their cores; the loop records it."""
        try:
            digest = await asyncio.to_thread(verify_on_disk, self._configuration, model_path)
        except (StartRefused, ModelRejected) as fault:
            log.error("model_verification_failed", model=name, reason=str(fault))
            self._record("model_verification_failed", name, "none", {"reason": str(fault)[:1000]})
            return
        if digest is not None:
            self._record("model_verified", name, digest, {})

    def _record(
        self,
        kind: str,
        name: str,
        digest: str,
        facts: Mapping[str, str | int],
        on_recorded: Callable[[], None] | None = None,
    ) -> None:
        at_ms = time.time_ns() // 1_000_000
        event = host_event(kind, name=name, digest=digest, actor=SUPERVISOR, at_ms=at_ms, facts=facts)
        self._recorder.record(encode_event(event), on_recorded)


def verify_on_disk(configuration: Configuration, model_path: Path) -> str | None:
    """Verify a promoted model as it lies there; None for a plain folder.

    Returns: the digest of the model.
    Raises: StartRefused, ModelRejected.
    """
    admitted = admit_model(configuration, model_path)
    found = find_item(configuration, model_path)
    if admitted is None or found is None:
        return None
    with ModelFolder(found[1].files) as folder:
        digests = hash_files_by(folder, folder.list_files(), lambda name: (admitted.algorithm_of(name),), num_threads=1)
    admitted.verify_loaded({name: digest for name, (digest,) in digests.items()}, lambda _name: True)
    return f"sha256:{admitted.root}"
