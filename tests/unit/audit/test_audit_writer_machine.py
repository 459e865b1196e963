"""A Hypothesis state machine over the writer, against a plain list, with the product's own `verify_log` as the invariant.

Records are appended, committed, published; the disk runs full and is freed; the process is killed between any two operations
on the disk, with or without a torn end behind it. After every step the list and the folder must agree.
"""

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from audit.append import LogWriter
from audit.checkpoint import Checkpoint
from audit.errors import NotDurable
from audit.fsck import verify_log
from audit.merkle import leaf_hash, root_of, verify_consistency
from audit.reader import LogReader
from audit.storage import Disk
from tests.unit.audit.conftest import ORIGIN, make_record


class Killed(BaseException):
    """The process was killed before an operation on the disk."""


class MortalDisk(Disk):
    """Counts operations; kills the process before the n-th, and may be full."""

    def __init__(self) -> None:
        self.operations_left: int | None = None
        self.bytes_left: int | None = None

    def _live(self) -> None:
        if self.operations_left is not None:
            if self.operations_left == 0:
                raise Killed
            self.operations_left -= 1

    def write(self, fd: int, data: bytes, path: Path) -> None:
        self._live()
        if self.operations_left == 0:  # Killed within the write: half of it stands there.
            super().write(fd, data[: len(data) // 2], path)
            raise Killed
        if self.bytes_left is not None and len(data) > self.bytes_left:
            super().write(fd, data[: self.bytes_left], path)
            raise NotDurable(f"{path}: write: No space left on device")
        super().write(fd, data, path)

    def sync(self, fd: int, path: Path) -> None:
        self._live()

    def write_file(self, path: Path, data: bytes, temporary: Path) -> None:
        self._live()
        super().write_file(path, data, temporary)

    def sync_folders(self, paths: object) -> None:
        self._live()

    def remove(self, path: Path) -> None:
        self._live()
        super().remove(path)

    def truncate(self, fd: int, size: int, path: Path) -> None:
        self._live()
        super().truncate(fd, size, path)


class PatientExecutor(Executor):
    """Runs what it is given when its result is asked for: other commits come in between, as with a thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future = Late(lambda: fn(*args, **kwargs))
        return future


class Late(Future):  # type: ignore[type-arg]
    """A result that is made at the last moment."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self._make: Callable[[], Any] | None = make

    def settle(self) -> None:
        make, self._make = self._make, None
        if make is not None:
            try:
                self.set_result(make())
            except BaseException as error:
                self.set_exception(error)

    def result(self, timeout: float | None = None) -> Any:
        self.settle()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self.settle()
        return super().exception(timeout)


class WriterMachine(RuleBasedStateMachine):
    """The writer and the list of what it acknowledged."""

    @initialize(segment_bytes=st.sampled_from([1, 4_000, 200_000]), has_spares=st.booleans())
    def start(self, segment_bytes: int, has_spares: bool) -> None:
        self.executor = PatientExecutor() if has_spares else None
        self.home = Path(tempfile.mkdtemp())
        self.segment_bytes = segment_bytes
        self.durable: list[bytes] = []
        self.pending: list[bytes] = []
        self.seen: list[Checkpoint] = []
        self.open()

    def open(self) -> None:
        self.now_s = 0.0
        self.disk = MortalDisk()
        self.writer = LogWriter(
            self.home / "log",
            self.home / "log.key",
            origin=ORIGIN,
            segment_bytes=self.segment_bytes,
            executor=self.executor,
            testing_only_disk=self.disk,
        )

    @rule(count=st.one_of(st.integers(1, 5), st.sampled_from([100, 255, 256, 300])), text=st.text(max_size=20))
    def append(self, count: int, text: str) -> None:
        first = self.writer.next_index
        records = [make_record(first + i, text) for i in range(count)]
        assert self.writer.append(records) == len(self.durable) + len(self.pending)
        self.pending += records

    @rule()
    def commit(self) -> None:
        indices = self.writer.commit()
        assert indices == range(len(self.durable), len(self.durable) + len(self.pending))
        self.durable += self.pending
        self.pending = []

    @rule()
    def publish(self) -> None:
        if (checkpoint := self.writer.publish()).size:
            self.seen.append(checkpoint)

    @rule(seconds=st.floats(0.0, 2.0))
    def publish_beside(self, seconds: float) -> None:
        """Begin a publication, or take in one that has ended."""
        self.now_s += seconds
        if self.writer._under_way is not None and seconds > 1.0:
            self.writer._under_way[1].exception()
        if (checkpoint := self.writer.publish_if_due(self.now_s)) is not None:
            self.seen.append(checkpoint)

    @rule(bytes_left=st.integers(0, 20_000), publishes=st.booleans())
    def fill_the_disk(self, bytes_left: int, publishes: bool) -> None:
        self.disk.bytes_left = bytes_left
        try:
            if publishes:
                self.publish()
            else:
                self.commit()
        except NotDurable:
            if not publishes:
                self.pending = []
        self.disk.bytes_left = None

    @rule(operations=st.integers(0, 25), publishes=st.booleans(), torn=st.binary(max_size=30))
    def kill(self, operations: int, publishes: bool, torn: bytes) -> None:
        self.disk.operations_left = operations
        try:
            if publishes:
                self.publish()
            else:
                self.commit()
        except Killed:
            pass
        self.writer.close()
        self.disk.operations_left = None
        last = max((self.home / "log/.state/wal").iterdir())
        with last.open("ab") as file:
            file.write(torn)
        self.open()
        survived = [self.writer.read(index) for index in range(self.writer.size)]
        # What was acknowledged is there; what was on its way may be, whole commits only.
        assert survived in (self.durable, self.durable + self.pending)
        self.durable, self.pending = survived, []
        if self.writer.checkpoint.size:
            self.seen.append(self.writer.checkpoint)

    @precondition(lambda self: self.durable)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.durable) - 1))
        assert self.writer.read(index) == self.durable[index]

    @invariant()
    def the_folder_holds_what_was_acknowledged(self) -> None:
        if not hasattr(self, "writer"):
            return
        assert (self.writer.size, self.writer.next_index) == (len(self.durable), len(self.durable) + len(self.pending))
        if not self.writer.checkpoint.size:
            return
        copy = self.home / "copy"
        shutil.copytree(self.home / "log", copy)
        verified = verify_log(copy, self.writer.key)
        assert verified.checkpoint.size + verified.num_unsigned == len(self.durable)
        leaves = [leaf_hash(record) for record in self.durable]
        assert verified.checkpoint.root == root_of(leaves[: verified.checkpoint.size])
        reader = LogReader(copy)
        for seen in self.seen[-3:]:
            proof = reader.prove_consistency(seen.size, verified.checkpoint.size)
            verify_consistency(seen.size, verified.checkpoint.size, proof, seen.root, verified.checkpoint.root)
        shutil.rmtree(copy)

    def teardown(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close()
            shutil.rmtree(self.home)


TestWriterMachine = WriterMachine.TestCase
TestWriterMachine.settings = settings(max_examples=30, stateful_step_count=25)


@pytest.mark.long
class TestWriterMachineLong(WriterMachine.TestCase):  # type: ignore[name-defined, misc]
    """The same for much longer."""

    settings = settings(max_examples=1_000, stateful_step_count=40)
