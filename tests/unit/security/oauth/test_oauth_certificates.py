"""Clients that authenticate by certificates, and tokens bound to them (RFC 8705), over real handshakes in memory."""

import base64
import datetime
import ipaddress
import json
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from security.clients import ClientDefinition
from security.errors import KeyUnusable, MalformedDocument
from security.keys import encode_private_key, generate_p256
from security.oauth.client_certificates import is_issued, names_subject
from security.oauth.client_keys import find_certificates, parse_client_keys
from security.oauth.dpop import thumbprint_of_certificate
from security.tls import (
    build_client_context,
    build_server_context,
    find_authorities,
    load_certificates,
    provision_identity,
    reload_identity,
)
from tests.support.controls import control
from tests.support.oauth_house import NOW, House, validate

DAY = datetime.timedelta(days=1)
GRANT = {"grant_type": "client_credentials"}


def issue(common_name, issuer=None, *, is_ca=False, names=(), at=NOW, organization=None):
    """A key and a certificate by `issuer`, or self-signed."""
    key = generate_p256()
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    subject = x509.Name(attributes)
    issuer_key, issuer_name = (key, subject) if issuer is None else (issuer[0], issuer[1].subject)
    now = datetime.datetime.fromtimestamp(at, datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 30 * DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
    return key, builder.sign(issuer_key, SHA256())


def der(issued):
    return issued[1].public_bytes(Encoding.DER)


def x5c(issued):
    numbers = issued[0].public_key().public_numbers()
    encode = lambda number: base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()  # noqa: E731
    entry = {"kty": "EC", "crv": "P-256", "x": encode(numbers.x), "y": encode(numbers.y)}
    return json.dumps({"keys": [{**entry, "x5c": [base64.b64encode(der(issued)).decode()]}]})


@pytest.fixture
def ca():
    return issue("Company CA", is_ca=True)


@pytest.fixture
def house(tmp_path, clock, issuer, ca):
    made = House(tmp_path, clock, issuer.keys, client_authorities=(ca[1],))
    yield made
    made.close()


@control("3.5.2", "IA-2", "IA-3", "IA-5(2)", "IA-8(4)")
async def test_a_client_is_known_by_the_subject_of_its_certificate(house, ca, issuer):
    """tls_client_auth; the token is bound to the certificate (`cnf.x5t#S256`)."""
    definition = ClientDefinition(name="c", auth_method="tls_client_auth", tls_subject="CN=billing")
    client_id = house.registry.create(definition, actor="t").client.client_id
    good = issue("billing", ca)
    status, body, _ = house.token({**GRANT, "client_id": client_id}, certificate=der(good))
    assert (status, body["token_type"]) == (200, "Bearer")
    accepted = await validate(issuer, body["access_token"])
    assert accepted.certificate_thumbprint == thumbprint_of_certificate(der(good))
    imposters = (
        None,
        der(issue("other", ca)),
        der(issue("billing")),
        der(issue("billing", issue("Company CA", is_ca=True))),
        der(issue("billing", ca, at=NOW - 60 * 86_400)),
    )
    for certificate in imposters:
        assert house.token({**GRANT, "client_id": client_id}, certificate=certificate)[0] == 401
    service = house.service.client.client_id
    assert house.token({**GRANT, "client_id": service}, certificate=der(good))[0] == 401


def test_a_self_signed_certificate_is_known_by_itself(house, ca):
    """self_signed_tls_client_auth: the very certificate that was registered, not one like it."""
    good = issue("edge")
    definition = ClientDefinition(name="c", auth_method="self_signed_tls_client_auth", jwks=x5c(good))
    client_id = house.registry.create(definition, actor="t").client.client_id
    assert house.token({**GRANT, "client_id": client_id}, certificate=der(good))[0] == 200
    for certificate in (None, der(issue("edge")), der(issue("edge", ca))):
        assert house.token({**GRANT, "client_id": client_id}, certificate=certificate)[0] == 401


def test_a_self_signed_certificate_that_may_sign_others_is_nobodys(house):
    """TLS and `tls_client_auth` would believe whom it signs: its owner could be any other client. openssl makes such ones."""
    good = issue("edge", is_ca=True)
    with pytest.raises(MalformedDocument, match="CA:FALSE"):
        find_certificates(parse_client_keys(x5c(good)))
    definition = ClientDefinition(name="c", auth_method="self_signed_tls_client_auth", jwks=x5c(good))
    client_id = house.registry.create(definition, actor="t").client.client_id
    assert house.token({**GRANT, "client_id": client_id}, certificate=der(good))[0] == 401


def test_a_public_clients_refresh_token_is_bound_to_the_certificate(house, ca):
    """RFC 8705 section 4: whoever copies the refresh token cannot use it without the certificate's key."""
    own, other = der(issue("phone", ca)), der(issue("phone", ca))
    fields = {"grant_type": "refresh_token", "refresh_token": house.session(certificate=own)["refresh_token"]}
    house.refused("invalid_grant", fields)
    house.refused("invalid_grant", fields, certificate=other)
    assert house.token(fields, certificate=own)[0] == 200


def test_subjects_are_compared_part_by_part(ca):
    """RFC 8705 section 2.1.2, RFC 4514: whatever the text of it looks like, and in its order."""
    issued = issue("ops, \u00e9", ca, organization="Acme")
    for registered in ("O=Acme,CN=ops\\, \u00e9", r"O=\41cme,CN=ops\2C \C3\A9", "2.5.4.10=Acme,CN=ops\\, \u00e9"):
        assert names_subject(der(issued), registered)
    for registered in ("CN=ops\\, \u00e9,O=Acme", "CN=ops\\, \u00e9", "O=Acme", "O=acme,CN=ops\\, \u00e9", "ops"):
        assert not names_subject(der(issued), registered)


def test_alternative_names_are_compared_by_their_kind(ca):
    """RFC 8705 section 2.1.2; a DNS name in a URI is another thing."""
    certificate = der(
        issue("x", ca, names=[x509.DNSName("Db.example"), x509.UniformResourceIdentifier("spiffe://a/b")])
    )
    assert names_subject(certificate, "dns:db.example")
    assert names_subject(certificate, "uri:spiffe://a/b")
    for registered in ("dns:other.example", "uri:db.example", "ip:10.0.0.1", "ip:x", "email:a@b", "CN=y", "dns:"):
        assert not names_subject(certificate, registered)
    assert not names_subject(der(issue("x", ca)), "dns:x")


def test_addresses_are_compared_as_such(ca):
    """Of the internet and of mail, each with its own kind."""
    names = [x509.IPAddress(ipaddress.ip_address("2001:db8::1")), x509.RFC822Name("ops@acme.example")]
    certificate = der(issue("x", ca, names=names))
    for registered in ("ip:2001:db8:0::1", "email:ops@acme.example"):
        assert names_subject(certificate, registered)
    for registered in ("ip:2001:db8::2", "email:dev@acme.example", "dns:ops@acme.example", "uri:2001:db8::1"):
        assert not names_subject(certificate, registered)


def test_a_certificate_is_good_from_its_first_second_to_its_last(ca):
    """And signed by one of the authorities, not by a certificate that merely has the name of one."""
    leaf, day_s = der(issue("x", ca)), 86_400
    ends = (NOW - day_s - 1, NOW - day_s, NOW + 30 * day_s, NOW + 30 * day_s + 1)
    other = issue("Other CA", is_ca=True)[1]
    assert [is_issued(leaf, (other, ca[1]), now) for now in ends] == [False, True, True, False]
    assert not is_issued(leaf, (other, issue("Company CA", is_ca=True)[1]), NOW)


def test_a_client_may_have_several_certificates(house):
    """While one is replaced by the next, both are good."""
    old, new = issue("edge"), issue("edge")
    keys = [entry for issued in (old, new) for entry in json.loads(x5c(issued))["keys"]]
    jwks = json.dumps({"keys": keys})
    definition = ClientDefinition(name="c", auth_method="self_signed_tls_client_auth", jwks=jwks)
    client_id = house.registry.create(definition, actor="t").client.client_id
    for issued in (old, new):
        assert house.token({**GRANT, "client_id": client_id}, certificate=der(issued))[0] == 200


def handshake(server, client):
    """The certificate that the server has seen, after a handshake in memory; TLS 1.3's client learns last of a refusal."""
    pipes = [ssl.MemoryBIO() for _ in range(4)]
    one = client.wrap_bio(pipes[0], pipes[1], server_hostname="localhost")
    other = server.wrap_bio(pipes[1], pipes[0], server_side=True)
    done = {one: False, other: False}
    for _ in range(10):
        for side in (one, other):
            if not done[side]:
                try:
                    side.do_handshake()
                    done[side] = True
                except ssl.SSLWantReadError:
                    continue
        if all(done.values()):
            return other.getpeercert(binary_form=True)
    raise AssertionError("the handshake did not end")


def test_a_live_context_serves_a_new_certificate(tmp_path):
    """And goes on with the old one when the new pair does not fit or is none."""
    first = provision_identity(tmp_path / "one", ["localhost"])
    second = provision_identity(tmp_path / "two", ["localhost"])
    server = build_server_context(first)
    good = (second.certificate.read_bytes(), second.key.read_bytes())
    for certificate, key in ((good[0], first.key.read_bytes()), (b"no certificate", good[1]), (b"", b"")):
        with pytest.raises(KeyUnusable):
            reload_identity(server, certificate, key)
        assert handshake(server, build_client_context(first.ca_certificate)) is None
    for certificate in (good[0] + b"\n" * 200_000, good[0]):  # A pipe holds 64 KiB.
        reload_identity(server, certificate, good[1])
        assert handshake(server, build_client_context(second.ca_certificate)) is None
        with pytest.raises(ssl.SSLError):
            handshake(server, build_client_context(first.ca_certificate))


def test_listeners_take_certificates_of_client_authorities_and_registered_ones(tmp_path):
    """One that shows none is served as well; a stranger's ends the handshake. A self-signed client is no authority."""
    identity = provision_identity(tmp_path / "tls", ["localhost"])
    now = datetime.datetime.now(datetime.UTC).timestamp()
    ca, own = issue("Company CA", is_ca=True, at=now), issue("edge", at=now)
    bundle = tmp_path / "clients.pem"
    bundle.write_bytes(ca[1].public_bytes(Encoding.PEM) + own[1].public_bytes(Encoding.PEM))
    server = build_server_context(identity, asks_clients=True, client_authorities=bundle)
    assert handshake(server, build_client_context(identity.ca_certificate)) is None
    for issued, is_welcome in (
        (issue("c", ca, at=now), True),
        (own, True),
        (issue("s", at=now), False),
        (issue("s", own, at=now), False),
    ):
        client = build_client_context(identity.ca_certificate)
        pem, key = tmp_path / "c.pem", tmp_path / "c.key"
        pem.write_bytes(issued[1].public_bytes(Encoding.PEM))
        key.write_bytes(encode_private_key(issued[0]))
        client.load_cert_chain(pem, key)
        if is_welcome:
            assert handshake(server, client) == der(issued)
        else:
            with pytest.raises(ssl.SSLError):
                handshake(server, client)
    assert find_authorities(load_certificates(bundle)) == (ca[1],)
