"""Spans and metrics for a collector on site, in OpenTelemetry's protocol; nothing leaves where `telemetry.otlp_endpoint` is empty.

`settings`, `spans` (a request that ended, as a span), `measures` (the GenAI histograms), `exporting` (both, over OTLP/HTTP).
Only `exporting` imports OpenTelemetry's SDK, and only where a collector is configured. No prompt, answer, token or identity of a
person is in what is sent: who asked is in the audit log, which the span names by its index.
"""
