"""The processes that no request waits for let the others go first."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("increment", [0, 15])
def test_a_process_that_steps_back_is_nice_and_interrupts_nobody(increment: int) -> None:
    """In a process of its own, as there is no way back: not from where the whole appliance was started either."""
    script = (
        f"import os; from appliance.processes.niceness import step_back; own = os.nice({increment}); step_back(); "
        "print(os.getpriority(os.PRIO_PROCESS, 0) == max(own, 10), os.sched_getscheduler(0) == os.SCHED_BATCH)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_a_process_that_takes_short_turns_hands_the_interpreter_over_soon() -> None:
    """In a process of its own: it holds for all threads."""
    script = (
        "import sys; from appliance.processes.niceness import take_short_turns; take_short_turns(); "
        "print(sys.getswitchinterval() < 0.001)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]
