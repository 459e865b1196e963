"""The rotary part of a configuration, in both spellings: `rope_parameters` (transformers 5) and `rope_theta` with
`rope_scaling` (transformers 4).

Kinds: `default`; `linear` (positions divided by a factor); `llama3` and `yarn` (long wavelengths stretched, short ones kept, with
a smooth passage between, by two rules; `yarn` also sharpens attention). Any other kind is refused by name: a model run with the
wrong rotary embedding still talks. `dynamic` is one: its angles depend on how long a text has become, and cached keys have others.

Source of `yarn`: Peng et al. 2023, with the parameters that transformers reads.
"""

import math
from dataclasses import dataclass
from typing import Literal

from runtime.errors import CheckpointRejected
from runtime.weights.fields import Fields

RopeKind = Literal["default", "linear", "llama3", "yarn"]


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
    beta_fast: float = 32.0
    """`yarn`: pairs that turn more often than this in original_max_position tokens are kept."""
    beta_slow: float = 1.0
    """`yarn`: pairs that turn less often are stretched by `factor`."""
    truncates: bool = True
    """`yarn`: the passage begins and ends at whole pairs."""
    attention_factor: float = 1.0
    """`yarn`: of queries and keys both, so that attention's scores grow by its square."""


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
    return _parse_scaling(scaling, theta, config) if scaling is not None else RopeConfig(theta)


def _parse_scaling(scaling: Fields, theta: float, config: Fields) -> RopeConfig:
    kind = scaling.text("rope_type", default=scaling.text("type", default="default"))
    if scaling.number("partial_rotary_factor", 0.0, 1.0, default=1.0) != 1.0:
        raise scaling.rejected("partial_rotary_factor", "1 (partial rotary embeddings are not supported)")
    if kind == "default":
        return RopeConfig(theta)
    if kind == "linear":
        return RopeConfig(theta, "linear", factor=scaling.number("factor", 1.0, 1e6))
    if kind == "yarn":
        return _parse_yarn(scaling, theta, config)
    if kind != "llama3":
        raise CheckpointRejected(f"{scaling.where}: rope type {kind!r} is not one of default, linear, llama3, yarn")
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


def _parse_yarn(scaling: Fields, theta: float, config: Fields) -> RopeConfig:
    fast, slow = (
        scaling.number("beta_fast", 1e-3, 1e6, default=32.0),
        scaling.number("beta_slow", 1e-3, 1e6, default=1.0),
    )
    if fast <= slow:
        raise scaling.rejected("beta_fast", f"more than beta_slow ({slow:g})")
    if theta == 1.0:
        raise CheckpointRejected(f"{scaling.where}: rope_theta: expected more than 1 with yarn, found 1")
    factor = scaling.number("factor", 1.0, 1e6)
    return RopeConfig(
        theta,
        "yarn",
        factor=factor,
        original_max_position=_original_max_position(scaling, config),
        beta_fast=fast,
        beta_slow=slow,
        truncates=scaling.boolean("truncate", default=True),
        attention_factor=_parse_attention_factor(scaling, factor),
    )


def _original_max_position(scaling: Fields, config: Fields) -> int:
    fields = scaling if scaling.has("original_max_position_embeddings") else config
    key = "original_max_position_embeddings" if fields is scaling else "max_position_embeddings"
    return fields.integer(key, 1, 1 << 24)


def _parse_attention_factor(scaling: Fields, factor: float) -> float:
    if scaling.has("attention_factor"):
        return scaling.number("attention_factor", 1e-3, 1e3)
    above, below = (scaling.number(key, 0.0, 1e3, default=0.0) for key in ("mscale", "mscale_all_dim"))
    if above and below:
        return _sharpening(factor, above) / _sharpening(factor, below)
    return _sharpening(factor, 1.0)


def _sharpening(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0
