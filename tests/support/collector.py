"""An OpenTelemetry collector for tests: takes OTLP over HTTPS with a certificate of its own, and keeps what it gets."""

import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from security.tls import build_server_context, provision_identity


class Collector:
    """Listens on a free loopback port until `close`."""

    def __init__(self, folder: Path) -> None:
        identity = provision_identity(folder, ["127.0.0.1"])
        assert identity.ca_certificate is not None
        self.ca_file = identity.ca_certificate
        self.bodies: list[tuple[str, bytes]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        tls = build_server_context(identity)
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def section(self) -> str:
        """Of a configuration that sends here, twice a second."""
        return (
            f'[telemetry]\notlp_endpoint = "https://127.0.0.1:{self.port}"\n'
            f'otlp_ca_certificate = "{self.ca_file}"\nexport_interval_s = 0.5\n'
        )

    def spans(self) -> list[Span]:
        """All that came."""
        parsed = [
            ExportTraceServiceRequest.FromString(body) for path, body in list(self.bodies) if path == "/v1/traces"
        ]
        return [
            span
            for request in parsed
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def metric_names(self) -> set[str]:
        """Of all that came."""
        parsed = [
            ExportMetricsServiceRequest.FromString(body) for path, body in list(self.bodies) if path == "/v1/metrics"
        ]
        return {
            metric.name
            for request in parsed
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Silence."""

        return Handler


def attributes(fields: Iterable[KeyValue]) -> dict[str, Any]:
    """As a dictionary of plain values."""
    return {field.key: _value(field.value) for field in fields}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [_value(one) for one in found.values] if kind == "array_value" else found
