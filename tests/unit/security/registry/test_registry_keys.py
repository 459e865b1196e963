"""Static keys: shown once, hashed under a key, good from where and as long as they were made for, revocable by the dozen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.clients import ClientDefinition
from security.errors import ClientRejected
from security.registry.static_keys import KeySelection
from security.scopes import Role
from security.static_keys import digest_static_key, hash_key_digest, is_static_key, make_static_key, parse_networks
from tests.support.controls import control
from tests.support.definitions import KEY

DAY = 86_400


@pytest.fixture
def client(registry):
    return registry.create(ClientDefinition(name="app", tenant="acme"), actor="t").client


def make(registry, client, **changes):
    values = {"networks": ("10.1.0.0/16",), "days": 30, **changes}
    return registry.keys.create(client.client_id, "k", actor="t", **values)


@control("3.5.10", "IA-5(6)")
def test_a_key_is_stored_as_a_keyed_hash_only(registry, client, tmp_path):
    """A copy of the file lets nobody in and confirms no guess."""
    issued = make(registry, client)
    assert is_static_key(issued.secret)
    assert issued.key.key_hash == hash_key_digest(KEY, digest_static_key(issued.secret))
    assert issued.key.key_hash != hash_key_digest(b"o" * 32, digest_static_key(issued.secret))
    stored = (tmp_path / "definitions.sqlite").read_bytes()
    assert issued.secret.encode() not in stored
    assert digest_static_key(issued.secret) not in stored
    assert issued.secret not in repr(issued)
    assert all(issued.secret not in change.after and "hash" not in change.after for change in registry.changes())


@control("3.5.6", "AC-2(2)", "AC-2(3)", "AC-2(11)")
def test_a_key_is_good_from_its_networks_until_it_expires(registry, client, clock):
    """IPv4 written as IPv6 is the same address; what is no address is nowhere."""
    key = make(registry, client, networks=("10.1.0.0/16", "2001:db8::/32"), days=1).key
    now = clock.now
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "2001:db8::1%eth0"):
        assert key.is_good_from(address, now)
    written = make(registry, client, networks=("::ffff:10.1.0.0/112", "::/0")).key.networks
    assert written == ("10.1.0.0/16", "::/0")
    for address in ("10.2.0.1", "::1", "", "10.1.2.3.4", "acme"):
        assert not key.is_good_from(address, now)
    assert key.is_good_from("10.1.2.3", now + DAY - 1)
    assert not key.is_good_from("10.1.2.3", now + DAY)
    (revoked,) = registry.keys.revoke([key.key_id], actor="t")
    assert not revoked.is_good_from("10.1.2.3", now)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"networks": ()}, "networks"),
        ({"networks": ("10.1.2.3/16",)}, "host bits"),
        ({"networks": ("everywhere",)}, "network"),
        ({"networks": ("10.0.0.0/8",) * 65}, "networks"),
        ({"days": 0}, "days"),
        ({"days": 366}, "days"),
    ],
)
def test_keys_without_bounds_are_not_made(registry, client, changes, match):
    """Every key ends, and every key is from somewhere."""
    with pytest.raises(ClientRejected, match=match):
        make(registry, client, **changes)
    assert registry.keys.all() == []


def test_keys_are_for_services_of_role_user_only(registry):
    """A bearer string without a holder must never be able to administer."""
    for definition in (
        ClientDefinition(name="a", role=Role.ADMIN),
        ClientDefinition(name="b", kind="application", auth_method="none"),
    ):
        other = registry.create(definition, actor="t").client
        with pytest.raises(ClientRejected, match="role user only"):
            make(registry, other)
    with pytest.raises(ClientRejected, match="does not exist"):
        registry.keys.create("nobody", "k", networks=("::1",), days=1, actor="t")


def test_bulk_revocation_ends_what_its_dry_run_names(registry, client, clock):
    """By client, tenant and times; without any word nothing is selected."""
    other = registry.create(ClientDefinition(name="b", tenant="other"), actor="t").client
    old = make(registry, client, days=10).key
    clock.now += 5 * DAY
    new, foreign = make(registry, client, days=100).key, make(registry, other).key
    ids = lambda **words: [key.key_id for key in registry.keys.select(KeySelection(**words))]  # noqa: E731
    assert set(ids(tenant="acme")) == {old.key_id, new.key_id}
    assert ids(client_id=other.client_id) == [foreign.key_id]
    assert ids(created_before=int(clock.now)) == [old.key_id]
    assert ids(tenant="acme", expires_after=int(clock.now) + 50 * DAY) == [new.key_id]
    assert len(ids(everything=True)) == 3
    with pytest.raises(ClientRejected, match="which keys"):
        ids()
    assert {key.key_id for key in registry.keys.revoke(ids(tenant="acme"), actor="eve")} == {old.key_id, new.key_id}
    assert ids(everything=True) == [foreign.key_id]
    assert [change.action for change in registry.changes()].count("key_revoked") == 2


def test_an_unknown_id_among_many_revokes_none(registry, client):
    """A typing error is noticed before anything has happened."""
    key = make(registry, client).key
    with pytest.raises(ClientRejected, match="key-none"):
        registry.keys.revoke([key.key_id, "key-none"], actor="t")
    assert registry.keys.all()[0].revoked_at is None


@given(st.text(max_size=60))
def test_only_the_whole_form_is_a_key(text):
    """Nothing else is ever asked about."""
    assert is_static_key(make_static_key())
    assert not is_static_key(make_static_key() + "x")
    assert not is_static_key(text + make_static_key()) or text == ""


@given(st.lists(st.text(max_size=20), max_size=5))
def test_networks_raise_nothing_but_the_family(texts):
    """Whatever is typed."""
    try:
        parse_networks(tuple(texts))
    except ClientRejected:
        pass
