"""`python -m appliance.processes ROLE --control-fd N`: what the supervisor executes. Not for people.

What is barred and what the collector must not walk is settled before anything else is imported.
"""

import sys

from appliance.processes.barred import bar_modules
from appliance.processes.memory import hold_collector


def main() -> int:
    """See `entry`."""
    bar_modules(role=sys.argv[1] if len(sys.argv) > 1 else "")
    hold_collector()
    from appliance.processes.entry import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
