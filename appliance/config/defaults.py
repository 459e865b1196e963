"""The configuration of a start without a file: one model, everything else by default.

It is written as TOML and parsed like any other, so that the zero-configuration start has no path of its own.
"""

import json
from pathlib import Path

from appliance.config.loading import parse_configuration
from appliance.config.schema import Configuration

DEMO_MODEL_DIR = Path(__file__).parents[1] / "demo" / "model"
DEMO_HEAD_DIR = Path(__file__).parents[1] / "demo" / "head"
DEMO_MODEL_NAME = "casemate-demo"


def default_configuration(
    model_dir: Path,
    served_model_name: str,
    state_dir: Path,
    ports: tuple[int, int] | None = None,
    *,
    head_dir: Path | None = None,
) -> tuple[Configuration, bytes]:
    """A development configuration for one model.

    Args:
        model_dir: the model's folder.
        served_model_name: what clients call it.
        state_dir: where everything is written.
        ports: of gateway and authority, where the defaults should not be used; 0 takes a free one.
        head_dir: of a head that drafts for the model.
    Returns: the configuration and its bytes, which parse again from any folder, as all paths in them are absolute.
    """
    lines = [f"state_dir = {_quote(state_dir.absolute())}"]
    if ports is not None:
        lines += ["[gateway]", f"port = {ports[0]}", "[authority]", f"port = {ports[1]}"]
    lines += [
        "[[engines]]",
        f"model_path = {_quote(model_dir.absolute())}",
        f"served_model_name = {_quote(served_model_name)}",
    ]
    if head_dir is not None:
        lines += ['speculative_algorithm = "EAGLE3"', f"speculative_draft_model_path = {_quote(head_dir.absolute())}"]
    data = ("\n".join(lines) + "\n").encode()
    return parse_configuration(data, Path("/"), "the built-in configuration"), data


def load_default_configuration() -> tuple[Configuration, bytes]:
    """The demo model with its state in `state` of the current folder: what `casemate serve` runs when nobody said otherwise."""
    return default_configuration(DEMO_MODEL_DIR, DEMO_MODEL_NAME, Path.cwd() / "state", head_dir=DEMO_HEAD_DIR)


def _quote(value: object) -> str:
    # JSON's strings without surrogate pairs are TOML's basic strings, but for DEL, which TOML wants escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")
