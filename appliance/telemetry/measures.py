"""The GenAI server metrics of OpenTelemetry's conventions, with the buckets that they give. Source: `gen-ai-metrics.md`."""

from opentelemetry.metrics import Meter

from appliance.gateway.observing import EndedRequest
from appliance.telemetry.spans import PROVIDER, operation_of

_DURATION_BUCKETS = [0.01 * 2**power for power in range(14)]
_FIRST_TOKEN_BUCKETS = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
_PER_TOKEN_BUCKETS = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5]
_USAGE_BUCKETS = [float(4**power) for power in range(14)]


class GenAiMeasures:
    """Histograms of what models answered."""

    def __init__(self, meter: Meter) -> None:
        self._duration = meter.create_histogram(
            "gen_ai.server.request.duration",
            "s",
            "Duration of a request",
            explicit_bucket_boundaries_advisory=_DURATION_BUCKETS,
        )
        self._first_token = meter.create_histogram(
            "gen_ai.server.time_to_first_token", "s", "Time to the first token",
            explicit_bucket_boundaries_advisory=_FIRST_TOKEN_BUCKETS,
        )  # fmt: skip
        self._per_token = meter.create_histogram(
            "gen_ai.server.time_per_output_token", "s", "Time per token after the first",
            explicit_bucket_boundaries_advisory=_PER_TOKEN_BUCKETS,
        )  # fmt: skip
        self._usage = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens in and out",
            explicit_bucket_boundaries_advisory=_USAGE_BUCKETS,
        )

    def record(self, ended: EndedRequest) -> None:
        """Count one request; those without a model's answer are not counted here."""
        inference = ended.inference
        if inference is None:
            return
        labels = {
            "gen_ai.operation.name": operation_of(inference),
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": inference.model,
            "gen_ai.response.model": inference.model,
        }
        outcome = labels | ({"error.type": ended.error} if ended.error else {})
        self._duration.record(inference.duration_s, outcome)
        self._usage.record(inference.prompt_tokens, labels | {"gen_ai.token.type": "input"})
        if inference.is_embedding:
            return
        self._usage.record(inference.output_tokens, labels | {"gen_ai.token.type": "output"})
        # The conventions ask these two of requests that went well.
        if inference.first_token_s is None or ended.error:
            return
        self._first_token.record(inference.first_token_s, labels)
        if inference.output_tokens > 1:
            rest_s = inference.duration_s - inference.first_token_s
            self._per_token.record(rest_s / (inference.output_tokens - 1), labels)
