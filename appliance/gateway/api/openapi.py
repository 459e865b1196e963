"""`GET /openapi.json`: the routes, their scopes and their bodies, out of the objects that check them, so that it cannot lag behind.

Answers are described as far as programs need it: their media type, and what an error looks like. Bodies are strict: a member that
is not there is refused unless it is null, which means absent (OpenAPI says so with `additionalProperties`).
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import msgspec

from appliance.gateway.api.chat_request import ChatFields
from appliance.gateway.api.completion_request import CompletionFields
from appliance.gateway.api.custody import ChangeFields
from appliance.gateway.api.embeddings import EmbeddingsFields
from appliance.gateway.api.generate_request import GenerateFields
from appliance.gateway.api.input_tokens import INPUT_TOKENS_ROUTE
from appliance.gateway.api.log_reading import SearchFields, TailFields
from appliance.gateway.api.messages_request import CountedFields, MessagesFields
from appliance.gateway.api.native import AbortFields
from appliance.gateway.api.parameters import ACCEPTED_HINTS
from appliance.gateway.api.responses_request import ConversationFields, ResponsesFields
from appliance.gateway.api.tokens import DetokenizeFields, TokenizeFields
from appliance.gateway.exchange import Exchange
from appliance.gateway.routes import Route, RouteTable
from security.scopes import SCOPE_DESCRIPTIONS, Scope

ROUTE = "/openapi.json"
BODIES: Mapping[str, type[msgspec.Struct]] = {
    "/v1/chat/completions": ChatFields,
    "/v1/completions": CompletionFields,
    "/generate": GenerateFields,
    "/v1/embeddings": EmbeddingsFields,
    "/v1/responses": ResponsesFields,
    INPUT_TOKENS_ROUTE: ConversationFields,
    "/v1/messages": MessagesFields,
    "/v1/messages/count_tokens": CountedFields,
    "/v1/tokenize": TokenizeFields,
    "/v1/detokenize": DetokenizeFields,
    "/tokenize": TokenizeFields,
    "/detokenize": DetokenizeFields,
    "/abort_request": AbortFields,
    "/audit/rules/propose": ChangeFields,
    "/audit/search": SearchFields,
    "/audit/tail": TailFields,
}
"""What each route's body is checked against first. `/flush_cache` reads none."""
_SCHEMAS = "#/components/schemas/"
_STATUSES = ("400", "401", "403", "404", "405", "408", "413", "415", "429", "500", "503", "504")
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


MEDIA = {
    "/metrics": "text/plain",
    "/audit/proof/{id}": "text/plain",
    "/audit/log/checkpoint": "text/plain",
    "/audit/log/cosigned": "text/plain",
    "/audit/log/tile/{path}": "application/octet-stream",
}
"""Of what is not JSON."""
STATE_ROUTES = ("/health", "/ready")
"""503 of these is no fault: their body says the same as with 200, and why not."""


class OpenApiEndpoint:
    """Shows the document, which is built once, from the table that it stands in."""

    def __init__(self, routes: RouteTable) -> None:
        self._routes = routes
        self._document: dict[str, Any] | None = None

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        if self._document is None:
            self._document = build_document(self._routes)
        await exchange.respond(200, self._document)


def build_document(routes: RouteTable) -> dict[str, Any]:
    """OpenAPI 3.1 of a route table."""
    _, components = msgspec.json.schema_components(BODIES.values(), ref_template=_SCHEMAS + "{name}")
    for component in components.values():
        if component.get("additionalProperties") is False:
            _describe_strictness(component)
    for body in set(BODIES.values()):
        _describe_strictness(components[body.__name__])
        components[body.__name__]["properties"] |= {
            name: {"description": f"Changes nothing: {why}."}
            for name, why in ACCEPTED_HINTS.items()
            if name not in body.__struct_fields__
        }
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Casemate", "version": version("casemate")},
        "paths": paths,
        "components": {
            "schemas": components | {"Error": _ERROR},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An access token (RFC 6750) or a static key.",
                }
            },
        },
    }


def _describe_strictness(body: dict[str, Any]) -> None:
    """What `parameters` does and types do not say: no member is unknown, and null is as if absent, where that is allowed."""
    body["additionalProperties"] = {"type": "null"}
    needed = body.get("required", ())
    for name, member in body["properties"].items():
        if name not in needed:
            body["properties"][name] = _or_null(member)


def _or_null(member: dict[str, Any]) -> dict[str, Any]:
    about = {key: value for key, value in member.items() if key == "default"}
    bare = {key: value for key, value in member.items() if key != "default"}
    if not bare:  # Anything.
        return member
    choices = bare.pop("anyOf", None) or [bare]
    null = {"type": "null"}
    return {"anyOf": [*choices, *([] if null in choices else [null])], **about}


def _operation(route: Route) -> dict[str, Any]:
    schema = {"type": "string"} if route.path in MEDIA else {}
    content = {MEDIA.get(route.path, "application/json"): {"schema": schema}}
    if _streams(route):
        content["text/event-stream"] = {"schema": {"type": "string"}}
    answer = {"description": "What was asked for.", "content": content}
    failure = {"description": "Why not.", "content": {"application/json": {"schema": {"$ref": _SCHEMAS + "Error"}}}}
    failures = dict.fromkeys(_STATUSES, failure)
    if route.path in STATE_ROUTES:
        failures["503"] = answer | {"description": "Not now; the body says why."}
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{route.path.replace('/', '_').replace('{id}', 'id').replace('{path}', 'path')}",
        "description": f"Needs the scope {route.scope}: {SCOPE_DESCRIPTIONS[route.scope]}.",
        "security": [] if route.scope is Scope.PUBLIC else [{"token": []}],
        "responses": {"200": answer, **failures},
    }
    if parameters := _path_parameters(route) + _query_parameters(route):
        operation["parameters"] = parameters
    body = BODIES.get(route.path)
    if body is not None:
        taken = {"application/json": {"schema": {"$ref": _SCHEMAS + body.__name__}}}
        operation["requestBody"] = {"required": True, "content": taken}
    return operation


def _streams(route: Route) -> bool:
    """Whether an answer may be events: where `stream` can be asked for."""
    asked = BODIES.get(route.path) if route.query is None else route.query
    return asked is not None and "stream" in asked.__struct_fields__


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": max_length},
        }
        for name, max_length in (("id", 256), ("path", 128))
        if f"{{{name}}}" in route.path
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    _, components = msgspec.json.schema_components([route.query])
    properties: dict[str, Any] = components[route.query.__name__]["properties"]
    return [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]
