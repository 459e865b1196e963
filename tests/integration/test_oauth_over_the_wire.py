"""Every way to a token, over TLS, by a client that shares no code with the authority: oauthlib where it knows the flow, and
otherwise requests written out as the RFC has them, signed with pyca/cryptography.
"""

import asyncio
import base64
import datetime
import hashlib
import html
import json
import re
import secrets
import time
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from oauthlib.oauth2 import BackendApplicationClient, DeviceClient, WebApplicationClient
from oauthlib.oauth2.rfc6749.errors import CustomOAuth2Error, InvalidGrantError, InvalidScopeError

from appliance.authority.credentials import find_tls_identity
from appliance.authority.token_check import build_token_check
from appliance.gateway.identity import Presented, TokenRefused
from appliance.messages.control import RenewCertificate
from security.clients import ClientDefinition
from security.passwords import make_code, unseal
from security.scopes import Role, Scope
from security.tls import build_client_context
from security.users import UserDefinition
from tests.support.authority_process import request, running_authority

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
REDIRECT = "https://app.example/back"
PASSWORD = "A-Very-Long-Password-1"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk_of(key):
    numbers = key.public_key().public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": b64(numbers.x.to_bytes(32, "big")),
        "y": b64(numbers.y.to_bytes(32, "big")),
    }


def sign_jwt(key, header, claims):
    """RFC 7515 section 5.1, RFC 7518 section 3.4, by hand."""
    signed = f"{b64(json.dumps({'alg': 'ES256', **header}).encode())}.{b64(json.dumps(claims).encode())}"
    r, s = decode_dss_signature(key.sign(signed.encode(), ECDSA(SHA256())))
    return f"{signed}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class Wire:
    """An outside client: what it knows of the authority is its metadata."""

    def __init__(self, running):
        self.running = running
        status, _, body = request(running, "GET", "/.well-known/oauth-authorization-server")
        assert status == 200
        self.metadata = json.loads(body)
        self.context = None

    def post(self, endpoint, body, **headers):
        path = urlsplit(self.metadata[endpoint]).path
        status, answered, content = request(
            self.running, "POST", path, headers={**FORM, **headers}, body=body, context=self.context
        )
        return status, answered, content.decode()

    def token(self, fields, **headers):
        status, answered, content = self.post("token_endpoint", urlencode(fields), **headers)
        return status, json.loads(content), answered

    def proof(self, key, *, url=None, method="POST", **claims):
        made = {"jti": secrets.token_hex(8), "htm": method, "iat": int(time.time()), **claims}
        made["htu"] = url or self.metadata["token_endpoint"]
        return sign_jwt(key, {"typ": "dpop+jwt", "jwk": jwk_of(key)}, made)


class Browser:
    """A person with a browser: follows forms, keeps one cookie, runs no script."""

    def __init__(self, running, login):
        self.running = running
        self.login = login
        self.new = running.registry.users.create(UserDefinition(login=login, name="Ada"), actor="t")
        self.cookie = ""
        self.origin = f"https://127.0.0.1:{running.port}"

    def go(self, method, path, fields=None):
        headers = {"Cookie": self.cookie} if self.cookie else {}
        body = None
        if fields is not None:
            headers |= {**FORM, "Origin": self.origin}
            body = urlencode(fields)
        status, answered, content = request(self.running, method, path, headers=headers, body=body)
        if cookie := answered["set-cookie"]:
            self.cookie = cookie.partition(";")[0]
        return status, answered.get("location", ""), content.decode()

    def hidden(self, page):
        form = page.partition("</form>")[0]
        pairs = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form)
        return {name: html.unescape(value) for name, value in pairs}

    def sign_in(self, path):
        """The first sign-in, with the change of password, on the way to a page. Returns: that page."""
        page = self.go("GET", path)[2]
        key, user = self.running.registry.key, self.new.user
        code = make_code(unseal(key, user.user_id, user.totp_secret), int(time.time()) // 30)
        fields = {"login": self.login, "password": self.new.password, "code": code}
        page = self.go("POST", "/sign_in", {**self.hidden(page), **fields})[2]
        chosen = {"current": self.new.password, "password": PASSWORD, "again": PASSWORD}
        status, location, _ = self.go("POST", "/password", {**self.hidden(page), **chosen})
        assert (status, location) == (303, path)
        return self.go("GET", path)[2]


@pytest.fixture
async def running(tmp_path):
    async with running_authority(tmp_path) as made:
        yield made


@pytest.fixture
async def wire(running):
    return await asyncio.to_thread(Wire, running)


def presented(token, **changes):
    values = {"scheme": "bearer", "method": "GET", "path": "/v1/models", "address": "192.0.2.1", **changes}
    return Presented(token=token, **values)


def application(running, **changes):
    definition = ClientDefinition(
        name="app", kind="application", redirect_uris=(REDIRECT,), **{"auth_method": "none", **changes}
    )
    return running.registry.create(definition, actor="t")


def _client_credentials(running, wire):
    client = BackendApplicationClient(running.issued.client.client_id, scope=["inference"])
    for in_body in (True, False):
        extra = {"client_secret": running.issued.secret} if in_body else {}
        body = client.prepare_request_body(include_client_id=in_body, **extra)
        headers = {}
        if not in_body:
            pair = f"{running.issued.client.client_id}:{running.issued.secret}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        status, _, content = wire.post("token_endpoint", body, **headers)
        assert status == 200
        token = client.parse_request_body_response(content, scope=["inference"])
    body = client.prepare_request_body(client_secret=running.issued.secret, scope="nonsense", include_client_id=True)
    with pytest.raises(InvalidScopeError):
        client.parse_request_body_response(wire.post("token_endpoint", body)[2])
    return token["access_token"]


async def test_client_credentials(running, wire):
    """RFC 6749 section 4.4, by secret in the header and in the body; the gateway's own check takes the token."""
    token = await asyncio.to_thread(_client_credentials, running, wire)
    check = build_token_check(running.config)
    assert (await check(presented(token))).client_id == running.issued.client.client_id


def _code_and_refresh(running, wire):
    client_id = application(running).client.client_id
    browser, client = Browser(running, "ada"), WebApplicationClient(client_id)
    verifier = client.create_code_verifier(64)
    challenge = client.create_code_challenge(verifier, "S256")
    state = secrets.token_urlsafe(16)
    uri = client.prepare_request_uri(
        wire.metadata["authorization_endpoint"], redirect_uri=REDIRECT, scope=["inference"], state=state,
        code_challenge=challenge, code_challenge_method="S256",
    )  # fmt: skip
    page = browser.sign_in(uri.partition(browser.origin)[2])
    status, location, _ = browser.go("POST", "/authorize", {**browser.hidden(page), "decision": "approve"})
    assert status == 303
    assert parse_qs(urlsplit(location).query)["iss"] == [wire.metadata["issuer"]]
    code = client.parse_request_uri_response(location, state=state)["code"]
    body = client.prepare_request_body(code=code, redirect_uri=REDIRECT, code_verifier=verifier)
    first = client.parse_request_body_response(wire.post("token_endpoint", body)[2])
    refresh = client.prepare_refresh_body(refresh_token=first["refresh_token"], client_id=client_id)
    second = client.parse_request_body_response(wire.post("token_endpoint", refresh)[2])
    assert second["refresh_token"] != first["refresh_token"]
    with pytest.raises(InvalidGrantError):
        client.parse_request_body_response(wire.post("token_endpoint", refresh)[2])
    last = client.prepare_refresh_body(refresh_token=second["refresh_token"], client_id=client_id)
    with pytest.raises(InvalidGrantError):  # Its family has ended with the one that came back.
        client.parse_request_body_response(wire.post("token_endpoint", last)[2])
    assert [kind for kind, _ in running.policy.revoked] == ["session"]
    assert running.policy.sources == ["127.0.0.1"]
    return second["access_token"], browser.new.user.user_id


async def test_authorization_code_with_pkce_and_refresh(running, wire):
    """RFC 6749 sections 4.1 and 6, RFC 7636, RFC 9207; a refresh token that comes back ends all that came of the sign-in."""
    token, user_id = await asyncio.to_thread(_code_and_refresh, running, wire)
    assert (await build_token_check(running.config)(presented(token))).subject == user_id


def _device(running, wire):
    client_id = application(running).client.client_id
    browser, client = Browser(running, "ada"), DeviceClient(client_id)

    def begin():
        status, _, content = wire.post("device_authorization_endpoint", urlencode({"client_id": client_id}))
        assert status == 200
        return json.loads(content)

    def poll(begun):
        body = client.prepare_request_body(begun["device_code"], include_client_id=True)
        return client.parse_request_body_response(wire.post("token_endpoint", body)[2])

    impatient, patient = begin(), begin()
    for error in ("authorization_pending", "slow_down"):
        with pytest.raises(CustomOAuth2Error, match=error):
            poll(impatient)
    page = browser.sign_in(patient["verification_uri_complete"].partition(browser.origin)[2])
    assert patient["user_code"] in page
    assert "Done" in browser.go("POST", "/device", {**browser.hidden(page), "decision": "approve"})[2]
    token = poll(patient)
    assert token["refresh_token"]
    with pytest.raises(InvalidGrantError):
        poll(patient)
    return token["access_token"], browser.new.user.user_id


async def test_device(running, wire):
    """RFC 8628: pending, too soon, confirmed in the browser, once."""
    token, user_id = await asyncio.to_thread(_device, running, wire)
    assert (await build_token_check(running.config)(presented(token))).subject == user_id


def _private_key_jwt(running, wire):
    key = generate_private_key(SECP256R1())
    jwks = json.dumps({"keys": [{**jwk_of(key), "kid": "k1"}]})
    definition = ClientDefinition(name="keyed", auth_method="private_key_jwt", jwks=jwks)
    client_id = running.registry.create(definition, actor="t").client.client_id
    claims = {"iss": client_id, "sub": client_id, "aud": wire.metadata["token_endpoint"], "exp": int(time.time()) + 60}
    fields = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": sign_jwt(key, {"typ": "JWT", "kid": "k1"}, {**claims, "jti": secrets.token_hex(8)}),
    }
    return [wire.token(fields)[0] for _ in range(2)]


async def test_private_key_jwt(running, wire):
    """RFC 7523 section 2.2: once."""
    assert await asyncio.to_thread(_private_key_jwt, running, wire) == [200, 401]


def _exchange_and_ends(running, wire):
    app = application(running).client.client_id
    service = running.registry.create(ClientDefinition(name="service"), actor="t")
    scopes = frozenset({Scope.TOKENS_INTROSPECT})
    watch = running.registry.create(ClientDefinition(name="w", role=Role.OPERATOR, scopes=scopes), actor="t")
    browser, client = Browser(running, "ada"), WebApplicationClient(app)
    verifier = client.create_code_verifier(43)
    uri = client.prepare_request_uri(
        wire.metadata["authorization_endpoint"], redirect_uri=REDIRECT, code_challenge_method="S256",
        code_challenge=client.create_code_challenge(verifier, "S256"),
    )  # fmt: skip
    page = browser.sign_in(uri.partition(browser.origin)[2])
    _, location, _ = browser.go("POST", "/authorize", {**browser.hidden(page), "decision": "approve"})
    code = parse_qs(urlsplit(location).query)["code"][0]
    body = client.prepare_request_body(code=code, redirect_uri=REDIRECT, code_verifier=verifier)
    person = client.parse_request_body_response(wire.post("token_endpoint", body)[2])
    by_service = {"client_id": service.client.client_id, "client_secret": service.secret}
    kind = "urn:ietf:params:oauth:token-type:access_token"
    grant = "urn:ietf:params:oauth:grant-type:token-exchange"
    subject = {"subject_token": person["access_token"], "subject_token_type": kind}
    status, acting, _ = wire.token({"grant_type": grant, **subject, **by_service})
    assert (status, acting["issued_token_type"]) == (200, kind)

    def told(token):
        fields = {"token": token, "client_id": watch.client.client_id, "client_secret": watch.secret}
        return json.loads(wire.post("introspection_endpoint", urlencode(fields))[2])

    seen = told(acting["access_token"])
    assert (seen["sub"], seen["act"]["sub"]) == (browser.new.user.user_id, service.client.client_id)
    url, headers, body = client.prepare_token_revocation_request(
        wire.metadata["revocation_endpoint"], person["refresh_token"], token_type_hint="refresh_token", client_id=app
    )
    assert wire.post("revocation_endpoint", body, **headers)[0] == 200
    assert told(person["refresh_token"]) == {"active": False}
    assert [kind for kind, _ in running.policy.revoked] == ["session"]
    return url


async def test_exchange_introspection_and_revocation(running, wire):
    """RFC 8693, RFC 7662, RFC 7009."""
    assert await asyncio.to_thread(_exchange_and_ends, running, wire) == wire.metadata["revocation_endpoint"]


@pytest.fixture
async def asking(tmp_path):
    """An authority that asks for DPoP nonces."""

    def configure(config):
        return msgspec.structs.replace(
            config, authority=msgspec.structs.replace(config.authority, dpop_nonce_lifetime_s=300)
        )

    async with running_authority(tmp_path, configure) as made:
        yield made


def _bound_by_proof(running):
    wire, key = Wire(running), generate_private_key(SECP256R1())
    secret = {"client_id": running.issued.client.client_id, "client_secret": running.issued.secret}
    fields = {"grant_type": "client_credentials", **secret}
    status, body, headers = wire.token(fields, DPoP=wire.proof(key))
    assert (status, body["error"]) == (400, "use_dpop_nonce")
    status, body, _ = wire.token(fields, DPoP=wire.proof(key, nonce=headers["dpop-nonce"]))
    assert (status, body["token_type"]) == (200, "DPoP")
    url = f"https://127.0.0.1:{running.config.gateway.port}/v1/models"
    ath = b64(hashlib.sha256(body["access_token"].encode()).digest())
    return body["access_token"], wire.proof(key, url=url, method="GET", ath=ath)


async def test_dpop_with_a_nonce(asking):
    """RFC 9449 sections 5, 7 and 8; the gateway's check wants the proof too."""
    token, proof = await asyncio.to_thread(_bound_by_proof, asking)
    check = build_token_check(asking.config)
    with pytest.raises(TokenRefused):
        await check(presented(token))
    shown = presented(token, scheme="dpop", proofs=(proof,))
    assert (await check(shown)).client_id == asking.issued.client.client_id


def _refusals(running, wire):
    """Each error that a client can bring upon itself. Returns: endpoint and error, status, error, headers."""
    secret = {"client_id": running.issued.client.client_id, "client_secret": running.issued.secret}
    own = {"grant_type": "client_credentials", **secret}
    app = {"client_id": application(running).client.client_id}
    token, key = wire.token(own)[1]["access_token"], generate_private_key(SECP256R1())
    device_grant = "urn:ietf:params:oauth:grant-type:device_code"
    exchange_grant = "urn:ietf:params:oauth:grant-type:token-exchange"
    subject = {"subject_token": token, "subject_token_type": "urn:ietf:params:oauth:token-type:access_token"}
    device = json.loads(wire.post("device_authorization_endpoint", urlencode(app))[2])
    asked = [
        # RFC 6749 section 5.2
        ("token", {}, "invalid_request"),
        ("token", {**own, "client_secret": "wrong"}, "invalid_client"),
        ("token", {"grant_type": "client_credentials", "client_id": "nobody", "client_secret": "x"}, "invalid_client"),
        ("token", {**app, "grant_type": "authorization_code", "code": "x", "code_verifier": "y" * 43}, "invalid_grant"),
        ("token", {**app, "grant_type": "refresh_token", "refresh_token": "cmr-x"}, "invalid_grant"),
        ("token", {**app, "grant_type": "client_credentials"}, "unauthorized_client"),
        ("token", {**own, "grant_type": "password", "username": "a", "password": "b"}, "unsupported_grant_type"),
        ("token", {**own, "scope": "inference nonsense"}, "invalid_scope"),
        ("token", {**own, "scope": "metrics.read"}, "invalid_scope"),
        # RFC 8707 section 2; RFC 8693 section 2.2.2: what is wrong with the subject token is the request's fault
        ("token", {**own, "resource": "https://elsewhere.example"}, "invalid_target"),
        ("token", {**secret, "grant_type": exchange_grant, **subject}, "invalid_request"),
        # RFC 8628 section 3.5
        ("token", {**app, "grant_type": device_grant, "device_code": device["device_code"]}, "authorization_pending"),
        ("token", {**app, "grant_type": device_grant, "device_code": device["device_code"]}, "slow_down"),
        # RFC 7009 section 2.1, RFC 7662 section 2.1
        ("revocation", {**secret}, "invalid_request"),
        ("revocation", {"token": token}, "invalid_client"),
        ("introspection", {**secret}, "invalid_request"),
        ("introspection", {"token": token}, "invalid_client"),
        ("device_authorization", {**secret}, "unauthorized_client"),
    ]  # fmt: skip
    found = []
    for endpoint, fields, error in asked:
        status, headers, body = wire.post(f"{endpoint}_endpoint", urlencode(fields))
        found.append(((endpoint, error), status, json.loads(body), headers))
    status, body, headers = wire.token(own, DPoP=wire.proof(key, url="https://elsewhere.example/token"))
    found.append((("token", "invalid_dpop_proof"), status, body, headers))
    return found


async def test_every_error_is_its_rfcs(running, wire):
    """The word, 400 or for a client that is not known 401 with a challenge, JSON, no cache, nothing of the request repeated."""
    for (endpoint, error), status, body, headers in await asyncio.to_thread(_refusals, running, wire):
        case = (endpoint, error, status, body)
        assert body["error"] == error, case
        assert status == (401 if error == "invalid_client" else 400), case
        assert headers["content-type"].startswith("application/json"), case
        assert headers["cache-control"] == "no-store", case
        if status == 401:
            assert headers["www-authenticate"].startswith("Basic realm="), case
        assert set(body) <= {"error", "error_description", "error_uri"}, case
        assert not re.search("nobody|nonsense|elsewhere|cmr-", body.get("error_description", "")), case


def make_certificate(common_name, issuer=None, *, is_ca=False):
    key = generate_private_key(SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    issuer_key, issuer_name = (key, subject) if issuer is None else (issuer[0], issuer[1].subject)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer_name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )  # fmt: skip
    return key, builder.sign(issuer_key, SHA256())


@pytest.fixture
async def certified(tmp_path):
    """An authority that asks clients for certificates: of a company's, and one registered edge device."""
    company, edge = make_certificate("Company CA", is_ca=True), make_certificate("edge")
    bundle = tmp_path / "clients.pem"
    bundle.write_bytes(company[1].public_bytes(Encoding.PEM) + edge[1].public_bytes(Encoding.PEM))

    def configure(config):
        tls = msgspec.structs.replace(config.tls, client_certificates=True, client_ca_certificate=str(bundle))
        return msgspec.structs.replace(config, tls=tls)

    async with running_authority(tmp_path, configure) as made:
        made.company, made.edge, made.folder = company, edge, tmp_path
        yield made


def _bound_by_certificate(running, shown, definition):
    client_id = running.registry.create(definition, actor="t").client.client_id
    wire = Wire(running)
    fields = {"grant_type": "client_credentials", "client_id": client_id}
    assert wire.token(fields)[0] == 401
    pem = running.folder / f"{client_id}.pem"
    private = shown[0].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(shown[1].public_bytes(Encoding.PEM) + private)
    wire.context = build_client_context(find_tls_identity(running.config).ca_certificate)
    wire.context.load_cert_chain(pem)
    status, body, _ = wire.token(fields)
    assert status == 200, body
    return body["access_token"]


async def test_mutual_tls(certified):
    """RFC 8705 sections 2.1, 2.2 and 3: by a company's certificate, by a registered one; the token is bound to it."""
    issued = make_certificate("billing", certified.company)
    x5c = base64.b64encode(certified.edge[1].public_bytes(Encoding.DER)).decode()
    jwks = json.dumps({"keys": [{**jwk_of(certified.edge[0]), "x5c": [x5c]}]})
    ways = (
        (issued, ClientDefinition(name="c", auth_method="tls_client_auth", tls_subject="CN=billing")),
        (certified.edge, ClientDefinition(name="e", auth_method="self_signed_tls_client_auth", jwks=jwks)),
    )
    check = build_token_check(certified.config)
    for shown, definition in ways:
        token = await asyncio.to_thread(_bound_by_certificate, certified, shown, definition)
        der = shown[1].public_bytes(Encoding.DER)
        assert (await check(presented(token, certificate=der))).role == "user"
        for other in (None, make_certificate("billing")[1].public_bytes(Encoding.DER)):
            with pytest.raises(TokenRefused, match="certificate"):
                await check(presented(token, certificate=other))


async def test_a_client_authority_that_is_replaced_vouches_at_once(certified):
    """Whom the new one has signed is known without a restart, whom the old one has signed no more."""
    definition = ClientDefinition(name="c", auth_method="tls_client_auth", tls_subject="CN=billing")
    newer = make_certificate("Newer CA", is_ca=True)
    identity = find_tls_identity(certified.config)
    bundle = newer[1].public_bytes(Encoding.PEM) + certified.edge[1].public_bytes(Encoding.PEM)
    certified.member.on_certificate(
        RenewCertificate(identity.certificate.read_bytes(), identity.key.read_bytes(), bundle)
    )
    signed = make_certificate("billing", newer)
    assert await asyncio.to_thread(_bound_by_certificate, certified, signed, definition)
    with pytest.raises(AssertionError, match="invalid_client"):
        await asyncio.to_thread(
            _bound_by_certificate, certified, make_certificate("billing", certified.company), definition
        )
