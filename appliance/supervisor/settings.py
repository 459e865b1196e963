"""The `[supervisor]` section."""

from typing import Annotated

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class SupervisorSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How processes are watched and restarted, and which of them compute first."""

    start_timeout_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="How long a process may take from its start until it is ready, in seconds."),
    ] = 600.0
    watchdog_timeout_s: Annotated[
        float,
        Meta(
            gt=0.5,
            le=86_400,
            description="A process whose main loop is silent for so long is killed and started again, in seconds. "
            "The engine has its own limit, `engines.watchdog_timeout_s`, as a long step is silent too.",
        ),
    ] = 10.0
    restart_delay_s: Annotated[
        float,
        Meta(gt=0, le=60, description="Delay before the first restart of a process, in seconds; it doubles with each."),
    ] = 0.2
    max_restart_delay_s: Annotated[
        float, Meta(gt=0, le=3600, description="Longest delay between two restarts, in seconds.")
    ] = 10.0
    stable_after_s: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="A process that was ready for so long starts again without a longer delay, in seconds.",
        ),
    ] = 30.0
    drain_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="How long open requests may go on after SIGTERM before they are cut, in seconds.",
        ),
    ] = 30.0
    foreground_niceness: Annotated[
        int,
        Meta(
            ge=-20,
            le=19,
            description="nice(2) of gateway workers and the auditor: below 0 they compute before all else where the cores do not "
            "suffice for all; 0 leaves them where the supervisor is. The kernel must allow it, by CAP_SYS_NICE or LimitNICE= in "
            "the unit of systemd.",
        ),
    ] = 0
