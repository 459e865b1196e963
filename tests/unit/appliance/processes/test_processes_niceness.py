"""The processes that no request waits for let the others go first."""

import subprocess
import sys


def test_a_process_that_steps_back_is_nice_and_interrupts_nobody() -> None:
    """In a process of its own, as there is no way back."""
    script = (
        "import os; from appliance.processes.niceness import step_back; step_back(); "
        "print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0) == os.SCHED_BATCH)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10", "True"]
