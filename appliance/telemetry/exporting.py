"""Spans and metrics on their way to the collector: OTLP over HTTP, in batches, from a thread of the SDK's.

Trust boundary: the gateway opens this one connection outwards, to the address that the configuration names. A collector that is
slow or gone costs spans, never a request: the queue is bounded and what does not fit is dropped, which the SDK logs.
"""

import time
from pathlib import Path

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from appliance.gateway.observing import EndedRequest
from appliance.telemetry.measures import GenAiMeasures
from appliance.telemetry.settings import TelemetrySettings
from appliance.telemetry.spans import attributes_of, name_of

_SCOPE = "casemate.gateway"
_MAX_QUEUED_SPANS = 8192
_BATCH_SPANS = 512
_EXPORT_TIMEOUT_S = 10
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SERVER_ERROR = 500


class Exporter:
    """An `Observer` that sends. One for each gateway worker."""

    def __init__(self, settings: TelemetrySettings, *, version: str, instance: int) -> None:
        endpoint = settings.otlp_endpoint.rstrip("/")
        authority = None if settings.otlp_ca_certificate is None else str(Path(settings.otlp_ca_certificate).absolute())
        self._resource = Resource(
            {"service.name": "casemate", "service.version": version, "service.instance.id": f"gateway/{instance}"}
        )
        self._scope = InstrumentationScope(_SCOPE, version)
        self._bound = round(settings.trace_ratio * (1 << 64))
        self._spans = BatchSpanProcessor(
            OTLPSpanExporter(f"{endpoint}/v1/traces", certificate_file=authority, timeout=_EXPORT_TIMEOUT_S),
            max_queue_size=_MAX_QUEUED_SPANS,
            schedule_delay_millis=settings.export_interval_s * 1000,
            max_export_batch_size=_BATCH_SPANS,
        )
        metrics = OTLPMetricExporter(f"{endpoint}/v1/metrics", certificate_file=authority, timeout=_EXPORT_TIMEOUT_S)
        reader = PeriodicExportingMetricReader(metrics, export_interval_millis=settings.export_interval_s * 1000)
        self._meters = MeterProvider([reader], self._resource, shutdown_on_exit=False)
        self._measures = GenAiMeasures(self._meters.get_meter(_SCOPE, version))

    def request_ended(self, ended: EndedRequest) -> None:
        """See `Observer`. The span is dropped if the queue is full."""
        self._measures.record(ended)
        if self._is_sampled(ended):
            self._spans.on_end(self._span_of(ended))

    def shutdown(self) -> None:
        """Send what is left; waits for the collector, for a bounded time."""
        self._spans.shutdown()  # type: ignore[no-untyped-call]
        self._meters.shutdown()

    def _is_sampled(self, ended: EndedRequest) -> bool:
        """A client's own mark decides; else the trace's number, so that all who see the trace decide alike."""
        if ended.trace.parent_id:
            return ended.trace.is_sampled
        return int(ended.trace.trace_id[16:], 16) < self._bound

    def _span_of(self, ended: EndedRequest) -> ReadableSpan:
        trace, end_ns = ended.trace, time.time_ns()
        trace_id = int(trace.trace_id, 16)
        parent = SpanContext(trace_id, int(trace.parent_id, 16), True, _SAMPLED) if trace.parent_id else None
        failed = ended.status >= _SERVER_ERROR
        return ReadableSpan(
            name_of(ended),
            context=SpanContext(trace_id, int(trace.span_id, 16), False, _SAMPLED),
            parent=parent,
            resource=self._resource,
            attributes=attributes_of(ended),
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR, ended.error) if failed else Status(StatusCode.UNSET),
            start_time=end_ns - round(ended.duration_s * 1e9),
            end_time=end_ns,
            instrumentation_scope=self._scope,
        )
