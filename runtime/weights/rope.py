"""The rotary part of a configuration, in both spellings: `rope_parameters` (transformers 5) and `rope_theta` with
`rope_scaling` (transformers 4).

Kinds: `default`; `linear` (positions divided by a factor); `llama3` (long wavelengths stretched, short ones kept, with
a smooth passage between). Any other kind is refused by name: a model run with the wrong rotary embedding still talks.
"""

from dataclasses import dataclass
from typing import Literal

from runtime.errors import CheckpointRejected
from runtime.weights.fields import Fields

RopeKind = Literal["default", "linear", "llama3"]


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """How positions turn the queries and keys."""

    theta: float
    kind: RopeKind = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    """`llama3`: wavelengths above original_max_position / low_freq_factor are stretched by `factor`."""
    high_freq_factor: float = 4.0
    """`llama3`: wavelengths below original_max_position / high_freq_factor are kept."""
    original_max_position: int = 0


def parse_rope(config: Fields) -> RopeConfig:
    """Read the rotary part of a `config.json`.

    Raises: CheckpointRejected for an unknown kind, a missing parameter, or two spellings that disagree.
    """
    if config.has("rope_parameters"):
        scaling: Fields | None = config.nested("rope_parameters")
        theta = config.nested("rope_parameters").number("rope_theta", 1.0, 1e12)
        if config.has("rope_theta") and config.number("rope_theta", 1.0, 1e12) != theta:
            raise config.rejected("rope_theta", f"{theta:g}, as in rope_parameters")
        if config.has("rope_scaling") and config.raw("rope_scaling") != config.raw("rope_parameters"):
            raise config.rejected("rope_scaling", "the same as rope_parameters")
    else:
        theta = config.number("rope_theta", 1.0, 1e12, default=10_000.0)
        scaling = config.nested("rope_scaling") if config.has("rope_scaling") else None
    if config.number("partial_rotary_factor", 0.0, 1.0, default=1.0) != 1.0:
        raise config.rejected("partial_rotary_factor", "1 (partial rotary embeddings are not supported)")
    return _parse_scaling(scaling, theta) if scaling is not None else RopeConfig(theta)


def _parse_scaling(scaling: Fields, theta: float) -> RopeConfig:
    kind = scaling.text("rope_type", default=scaling.text("type", default="default"))
    if scaling.number("partial_rotary_factor", 0.0, 1.0, default=1.0) != 1.0:
        raise scaling.rejected("partial_rotary_factor", "1 (partial rotary embeddings are not supported)")
    if kind == "default":
        return RopeConfig(theta)
    if kind == "linear":
        return RopeConfig(theta, "linear", factor=scaling.number("factor", 1.0, 1e6))
    if kind != "llama3":
        raise CheckpointRejected(f"{scaling.where}: rope type {kind!r} is not one of default, linear, llama3")
    low = scaling.number("low_freq_factor", 1e-3, 1e6)
    high = scaling.number("high_freq_factor", 1e-3, 1e6)
    if high <= low:
        raise scaling.rejected("high_freq_factor", f"more than low_freq_factor ({low:g})")
    return RopeConfig(
        theta,
        "llama3",
        factor=scaling.number("factor", 1.0, 1e6),
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position=scaling.integer("original_max_position_embeddings", 1, 1 << 24),
    )
