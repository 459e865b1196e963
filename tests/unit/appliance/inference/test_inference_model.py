"""What an engine says of the model that it has loaded, and which settings contradict it."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from appliance.config.defaults import DEMO_MODEL_DIR
from appliance.inference.model import LoadedModel, load_model
from runtime.errors import EngineMisconfigured
from runtime.settings import EngineSettings


def load(**given: Any) -> LoadedModel:
    return load_model(EngineSettings(model_path=str(DEMO_MODEL_DIR), **given), "demo", progress=lambda: None)


def test_a_context_that_the_cache_does_not_hold_is_refused() -> None:
    """As on a GPU: with how many tokens it has, and not by serving shorter ones. What is left open is what the cache holds."""
    with pytest.raises(EngineMisconfigured, match=r"context_length: 250 is more than the 240 tokens"):
        load(max_total_tokens=250, context_length=250)
    assert load(max_total_tokens=250).facts.context_length == 240


@pytest.mark.parametrize(("dtype", "warned"), [("fp8_e4m3", True), ("auto", False)])
def test_scales_that_nobody_measured_are_warned_of(dtype: str, warned: bool) -> None:
    """In the log, and to the metrics."""
    with capture_logs() as lines:
        loaded = load(max_total_tokens=64, kv_cache_dtype=dtype)
    assert loaded.facts.has_unscaled_cache == warned
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [line["event"] for line in warnings] == ["kv_cache_unscaled"] * warned
    assert all("casemate calibrate" in line["reason"] for line in warnings)
