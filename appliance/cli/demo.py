"""`casemate demo`: start with the demo model, ask it a question, verify the record of it."""

import argparse
from pathlib import Path

from appliance.cli.state_lock import hold_state
from appliance.config import default_configuration
from appliance.config.defaults import DEMO_HEAD_DIR, DEMO_MODEL_DIR, DEMO_MODEL_NAME
from appliance.demo.run import Demonstration

DEFAULT_QUESTION = "What is Casemate?"


def add_demo_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `demo`."""
    demo = subparsers.add_parser("demo", help="the whole way with the demo model", description=__doc__)
    demo.add_argument("--once", action="store_true", help="stop after the answer and its record, instead of staying up")
    demo.add_argument("--question", default=DEFAULT_QUESTION, help="what to ask (default: %(default)s)")
    demo.add_argument(
        "--state", type=Path, default=Path("state"), help="folder for keys, clients and log (default: %(default)s)"
    )
    demo.add_argument("--port", type=int, default=8443, help="port of the gateway (default: %(default)s)")
    demo.add_argument("--authority-port", type=int, default=8444, help="port of the authority (default: %(default)s)")
    demo.set_defaults(handler=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    ports = (arguments.port, arguments.authority_port)
    configuration, raw = default_configuration(
        DEMO_MODEL_DIR, DEMO_MODEL_NAME, arguments.state, ports, head_dir=DEMO_HEAD_DIR
    )
    config_file = configuration.state_path / "demo.toml"
    with hold_state(
        configuration.state_path
    ):  # Whoever runs there has a log and a configuration there, and would answer for us.
        config_file.write_bytes(raw)
    return Demonstration(config_file, configuration, arguments.question, keeps_running=not arguments.once).run()
