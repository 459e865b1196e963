"""The `[gateway]` section."""

from typing import Annotated

from msgspec import Meta, Struct

from appliance.gateway.tools.form_names import CallForm, ReasoningForm


class GatewaySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where clients connect, how many workers answer them, and what one request may cost."""

    host: Annotated[str, Meta(min_length=1, max_length=253, description="Address that clients connect to.")] = (
        "127.0.0.1"
    )
    port: Annotated[
        int, Meta(ge=0, le=65535, description="TCP port that clients connect to; 0 takes any free one.")
    ] = 8443
    workers: Annotated[int, Meta(ge=1, le=64, description="Gateway processes that share the port.")] = 1
    max_body_bytes: Annotated[
        int, Meta(ge=1024, le=1 << 28, description="Largest request body, in bytes; more is refused while it is read.")
    ] = 4 << 20
    max_pending_body_bytes: Annotated[
        int,
        Meta(
            ge=1 << 16,
            le=1 << 34,
            description="Bodies of all open requests of one worker together, in bytes; beyond, requests are refused with 503.",
        ),
    ] = 128 << 20
    max_header_bytes: Annotated[
        int, Meta(ge=4096, le=1 << 20, description="Largest request line and headers together, in bytes.")
    ] = 64 << 10
    header_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=600,
            description="How long a TLS handshake, and then a request's headers, may take, in seconds.",
        ),
    ] = 10.0
    body_timeout_s: Annotated[
        float, Meta(gt=0, le=3600, description="How long the body of a request may take to arrive, in seconds.")
    ] = 30.0
    keep_alive_timeout_s: Annotated[
        int, Meta(ge=1, le=3600, description="How long an idle connection is kept open, in seconds.")
    ] = 30
    send_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="How long a client may refuse to read what is ready for it before it is cut off, in seconds.",
        ),
    ] = 20.0
    send_buffer_bytes: Annotated[
        int, Meta(ge=8192, le=1 << 24, description="Kernel buffer for one connection's unread answer, in bytes.")
    ] = 128 << 10
    request_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="Longest life of one request, from its last byte to the end of its answer, in seconds.",
        ),
    ] = 600.0
    max_connections: Annotated[
        int, Meta(ge=1, le=1 << 20, description="Connections that one worker holds; more are closed at once.")
    ] = 12_000
    max_connections_per_source: Annotated[
        int,
        Meta(
            ge=1,
            le=1 << 20,
            description="Connections that one worker holds of one address, or of one IPv6 network of 64 bits; more are closed at "
            "once. A proxy before the gateway is one address.",
        ),
    ] = 11_000
    max_open_requests: Annotated[
        int, Meta(ge=1, le=1 << 20, description="Requests that one worker serves at a time; more are refused with 503.")
    ] = 10_000
    max_unread_tokens: Annotated[
        int, Meta(ge=16, le=1 << 20, description="Tokens that wait for one client; a client further behind is cut off.")
    ] = 16_384
    max_prompts: Annotated[int, Meta(ge=1, le=4096, description="Most prompts in one completion request.")] = 256
    max_messages: Annotated[int, Meta(ge=1, le=1 << 16, description="Most messages in one chat request.")] = 4096
    max_tools: Annotated[int, Meta(ge=1, le=4096, description="Most tools in one chat request.")] = 128
    max_client_priority: Annotated[
        int,
        Meta(
            ge=-100, le=100, description="Highest `priority` that a client may ask for; the default of a request is 0."
        ),
    ] = 0
    tool_call_parser: Annotated[
        dict[str, CallForm],
        Meta(description="Form of tool calls by served model; for other models their chat template tells it."),
    ] = {}
    reasoning_parser: Annotated[
        dict[str, ReasoningForm],
        Meta(description="Form of reasoning by served model; for other models their chat template tells it."),
    ] = {}
    response_retention_s: Annotated[
        int,
        Meta(
            ge=0,
            le=31_536_000,
            description="How long responses of /v1/responses are kept for their tenant, from their end on, in seconds; 0 keeps "
            "none, and none is made in the background.",
        ),
    ] = 0
    grammar_cache_bytes: Annotated[
        int, Meta(ge=0, le=1 << 36, description="Compiled grammars that one worker keeps for their senders, in bytes.")
    ] = 64 << 20
    template_timeout_s: Annotated[
        float, Meta(gt=0, le=60, description="How long a chat template may take for one request, in seconds.")
    ] = 1.0
    ticket_lifetime_ms: Annotated[
        int,
        Meta(
            ge=100,
            le=3_600_000,
            description="How long the auditor's ticket and the request in the engine may wait for each other, in milliseconds.",
        ),
    ] = 60_000
    peer_timeout_s: Annotated[
        float, Meta(gt=0, le=600, description="How long policy or auditor may take to answer, in seconds.")
    ] = 10.0
    max_token_age_ms: Annotated[
        int,
        Meta(
            ge=100,
            le=3_600_000,
            description="`/ready` is false when no token came out of an engine for so long, in milliseconds.",
        ),
    ] = 15_000
