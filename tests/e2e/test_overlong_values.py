"""Whatever a stranger or a client may write is bounded before it enters a message: a peer ends the link on what is longer.

An ended link is everybody's loss: the answers of all clients of that worker are cut. So each of these values, far too long
for any message, has to be refused or taken by the process that it reached, and the links have to stand.
"""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request

import pytest

from tests.support.appliance import Appliance

LENGTHS = [65, 300, 2000]
HEADERS = ["traceparent", "tracestate", "baggage", "x-request-id", "user-agent", "x-forwarded-for", "forwarded", "dpop"]
FIELDS = ["user", "model", "reasoning_effort", "prompt_cache_key", "safety_identifier", "service_tier", "stop"]
CHAT = {"model": "casemate-demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


def status_of(appliance: Appliance, url: str, body: bytes | None, headers: dict[str, str]) -> int:
    """HTTP status of one request."""
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, context=appliance.client.tls, timeout=30) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code


def num_lost_links(appliance: Appliance) -> int:
    return appliance.log_file.read_text(errors="replace").count('"link_ended"')


@pytest.mark.parametrize("length", LENGTHS)
def test_no_value_of_a_client_ends_a_link(appliance: Appliance, access_token: str, length: int) -> None:
    """Ids, names and headers of an authenticated client: refused, unknown, or taken."""
    value, before = "x" * length, num_lost_links(appliance)
    identified = {"Authorization": f"Bearer {access_token}", "Content-Type": "application/json"}
    for path in (
        f"/audit/request/{value}",
        f"/audit/proof/{'9' * length}",
        f"/v1/responses/{value}",
        f"/v1/models/{value}",
    ):
        assert status_of(appliance, appliance.url + path, None, identified) == 404, path
    bodies = [("/abort_request", {"rid": value})]
    bodies += [("/v1/chat/completions", CHAT | {field: value}) for field in FIELDS]
    bodies += [("/generate", {"text": "hi", "rid": value, "sampling_params": {"max_new_tokens": 2, "regex": value}})]
    for path, body in bodies:
        assert status_of(appliance, appliance.url + path, json.dumps(body).encode(), identified) < 500, body
    for name in HEADERS:
        assert status_of(appliance, appliance.url + "/v1/models", None, identified | {name: value}) < 500, name
    assert num_lost_links(appliance) == before


@pytest.mark.parametrize("length", LENGTHS)
def test_no_value_of_a_stranger_ends_a_link(appliance: Appliance, length: int) -> None:
    """What reaches the authority, and a key, before anybody is known."""
    value, before = "x" * length, num_lost_links(appliance)
    credentials = base64.b64encode(f"{value}:{value}".encode()).decode()
    authority = f"https://127.0.0.1:{appliance.authority_port}"
    client = {"client_id": value, "client_secret": value}
    forms: list[tuple[str, dict[str, str], dict[str, str]]] = [
        ("/token", {"grant_type": "client_credentials"}, {"Authorization": f"Basic {credentials}"}),
        ("/token", {"grant_type": "client_credentials", "scope": value, "resource": f"https://{value}"} | client, {}),
        ("/token", {"grant_type": value} | client, {}),
        ("/token", {"grant_type": "refresh_token", "refresh_token": value} | client, {}),
        ("/revoke", {"token": value} | client, {}),
        ("/introspect", {"token": value} | client, {}),
    ]
    for path, form, headers in forms:
        assert 400 <= status_of(appliance, authority + path, urllib.parse.urlencode(form).encode(), headers) < 500, form
    assert status_of(appliance, f"{appliance.url}/v1/models", None, {"Authorization": f"Bearer cm-{value}"}) == 401
    assert num_lost_links(appliance) == before
