"""A real auditor process without the rest of the appliance, for benchmarks: this process plays supervisor and gateways.

The auditor is started by the same command as the supervisor starts it, gets its assignment over the control socket, and one
link for each gateway.
"""

import os
import re
import select
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from appliance.ipc.edges import ControlCodec, EdgeCodec
from appliance.ipc.framed_socket import FramedSocket
from appliance.ipc.introduction import introduce, make_link_pair, verify_introduction
from appliance.messages.control import Assign, Drain, GrantLink, ProcessToSupervisor, Ready, Role

CONFIGURATION = """\
state_dir = {state}
[[engines]]
model_path = {state}
[audit]
stranger_records_per_minute = 1000000
"""


class AuditorProcess:
    """One auditor over a state folder, ready when the constructor returns."""

    def __init__(self, state: Path, num_gateways: int) -> None:
        (state / "audit").mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        command = [sys.executable, "-m", "appliance.processes", "auditor", "--control-fd", str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stderr=subprocess.DEVNULL)
        theirs.close()
        self._control = FramedSocket(ours, ControlCodec(ProcessToSupervisor))
        quoted = msgspec.json.encode(str(state.absolute())).decode()
        text = CONFIGURATION.format(state=quoted)
        self._tell(Assign("auditor", 0, text.encode(), str(state.absolute()), single_user=True))
        self._wait_for(Ready)
        self.links = [self.connect("gateway", number) for number in range(num_gateways)]

    @property
    def cpu_s(self) -> float:
        """What it has used of a processor, user and system, all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def max_rss_mb(self) -> float:
        """The most memory that it had at once, in MiB."""
        (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(line) / 1024

    def drain(self) -> None:
        """Stop it in order."""
        self._tell(Drain(5.0))
        for link in self.links:
            link.close()
        assert self.process.wait(timeout=60) == 0
        self._control.close()

    def connect(self, role: Role, number: int) -> FramedSocket:
        """A link of this process, which plays that one. MUST be closed before `drain`, but for those in `links`."""
        ours, theirs = make_link_pair()
        self._tell(GrantLink(role, number, os.getpid(), os.getuid()), theirs.detach())
        introduce(ours, role, number)
        verify_introduction(ours, GrantLink("auditor", 0, self.process.pid, os.getuid()))
        return FramedSocket(ours, EdgeCodec(role, "auditor"))

    def _tell(self, message: msgspec.Struct, fd: int | None = None) -> None:
        self._control.queue(message, fd)
        self._control.flush()

    def _wait_for(self, kind: type[msgspec.Struct]) -> None:
        while True:
            select.select([self._control.sock], [], [], 30.0)
            messages, ended = self._control.receive()
            if any(isinstance(message, kind) for message in messages):
                return
            assert not ended, "the auditor ended before it was ready"
