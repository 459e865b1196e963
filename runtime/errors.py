"""The errors that leave `runtime`, split by what the caller does next.

RuntimeFault
├── RequestRejected        untrusted input: tell the client, go on
├── CheckpointRejected     untrusted model folder: refuse to start
├── EngineMisconfigured    the operator's settings cannot work: refuse to start
│   └── KernelMissing      a frozen bundle lacks a kernel, or holds one that is not what it says
├── EngineUnavailable      try again later
│   └── QueueFull          more requests wait than may
└── TrainingStopped        a training cannot go on: make room or correct what it was given, and run it again
"""


class RuntimeFault(Exception):
    """Whatever `runtime` refuses. Messages name the thing, what was expected and what came."""


class RequestRejected(RuntimeFault):
    """A request that cannot be served as asked. `code` is a stable word for programs; the message is for people."""

    def __init__(self, code: str, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.parameter = parameter


class CheckpointRejected(RuntimeFault):
    """A model folder that is incomplete, malformed, inconsistent or of a kind we do not load."""


class EngineMisconfigured(RuntimeFault):
    """Settings that contradict each other, the model or the machine."""


class KernelMissing(EngineMisconfigured):
    """A kernel that the configuration needs and the frozen bundle does not hold, by name."""


class EngineUnavailable(RuntimeFault):
    """The engine cannot take the request now."""


class QueueFull(EngineUnavailable):
    """More requests wait than may: it is the load, and not the engine, that is out of order."""


class TrainingStopped(RuntimeFault):
    """A training that cannot begin or go on. What it has saved is left, and the next run continues there."""
