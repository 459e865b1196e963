"""What a process does with what its launcher told it. The filter itself is put on in tests/faults, in processes of their own."""

import pytest
import structlog

from appliance.errors import StartRefused
from appliance.processes.confinement import confine_after_imports
from security.sandbox.launch import Confined
from security.sandbox.platform import Platform


def confined(*, failed: tuple[str, ...], strict: bool) -> Confined:
    """A result of stage one on a system without filters."""
    return Confined(
        "engine",
        "none",
        False,
        ("files",),
        failed,
        Platform(7, "", has_filter=False, no_private_root="", no_own_users=""),
        strict,
    )


def test_a_failed_step_stops_the_start_if_the_configuration_insists() -> None:
    """Production without the waiver: what the system can do must be done."""
    with pytest.raises(StartRefused, match="confinement failed: landlock: no luck"):
        confine_after_imports(confined(failed=("landlock: no luck",), strict=True))


@pytest.mark.parametrize(("failed", "strict"), [(("landlock: no luck",), False), ((), True)])
def test_otherwise_the_start_goes_on(failed: tuple[str, ...], strict: bool) -> None:
    """Development degrades with a report; what the platform lacks was reported before and is no failed step."""
    with structlog.testing.capture_logs() as logs:
        confine_after_imports(confined(failed=failed, strict=strict))
    (report,) = logs
    assert (report["event"], report["applied"], report["failed"]) == ("confined", ["files"], list(failed))
    assert report["log_level"] == ("error" if failed else "info")


def test_without_a_launcher_nothing_is_put_on() -> None:
    """`confinement.enabled = false`, which is said."""
    with structlog.testing.capture_logs() as logs:
        confine_after_imports(None)
    assert [report["event"] for report in logs] == ["not_confined"]
