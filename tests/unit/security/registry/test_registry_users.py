"""People: what is stored, what a first password is good for, what a reset ends."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.errors import ClientRejected
from security.passwords import (
    count_edits,
    find_step,
    is_password,
    make_code,
    make_password,
    unseal,
    verify_new_password,
)
from security.registry.snapshot import read_definitions
from security.users import UserDefinition
from tests.support.controls import control
from tests.support.definitions import KEY


@control("3.5.2", "3.5.3", "IA-2", "IA-2(1)", "IA-2(2)", "IA-5")
def test_a_person_begins_with_a_password_and_an_authenticator_shown_once(registry, tmp_path):
    """Both work, and neither is in the file."""
    new = registry.users.create(UserDefinition(login="ada", name="Ada L"), actor="os:root")
    user = registry.users.find("ada")
    assert user == registry.users.find(user.user_id) == new.user
    assert user.must_change_password
    assert is_password(user.password_hash, new.password)
    verify_new_password(new.password, "ada", ())  # It keeps its own rules.
    secret = unseal(KEY, user.user_id, user.totp_secret)
    assert find_step(secret, make_code(secret, 100), 100 * 30, 0) == 100
    stored = (tmp_path / "definitions.sqlite").read_bytes()
    assert new.password.encode() not in stored
    assert secret not in stored
    assert new.password not in repr(new)


@control("3.5.10", "IA-5(1)", "IA-5(6)", "SC-28(1)")
def test_a_sealed_secret_belongs_to_one_person_and_one_key(registry):
    """It cannot be moved to another row, nor read with another key file."""
    user = registry.users.create(UserDefinition(login="ada", name="Ada"), actor="t").user
    assert unseal(KEY, "user-other", user.totp_secret) is None
    assert unseal(b"o" * 32, user.user_id, user.totp_secret) is None
    assert unseal(KEY, user.user_id, b"short") is None


@control("3.3.2", "3.5.1", "3.5.5", "IA-2(5)", "IA-4")
def test_logins_are_taken_once(registry):
    """Also after the person was disabled."""
    registry.users.create(UserDefinition(login="ada", name="Ada"), actor="t")
    registry.users.disable("ada", actor="t")
    with pytest.raises(ClientRejected, match="taken"):
        registry.users.create(UserDefinition(login="ada", name="Ada"), actor="t")
    assert len(registry.users.all()) == 1


@pytest.mark.parametrize(
    "changes",
    [{"login": ""}, {"login": "Ada"}, {"login": "a b"}, {"login": "x" * 65}, {"name": ""}, {"tenant": "../x"}],
)
def test_definitions_that_make_no_sense_are_refused(registry, changes):
    """And nothing is stored of them."""
    with pytest.raises(ClientRejected):
        registry.users.create(UserDefinition(**{"login": "ada", "name": "Ada", **changes}), actor="t")
    assert registry.users.all() == []
    assert registry.changes() == []


@control("3.1.11", "3.9.2", "AC-2(5)", "AC-2(13)", "AC-12")
def test_disabling_and_resetting_void_every_token(registry, clock):
    """What was given out before ends; enabling does not bring it back."""
    user = registry.users.create(UserDefinition(login="ada", name="Ada"), actor="t").user
    registry.users.disable("ada", actor="t")
    (voided,) = read_definitions(registry.database).revocations
    assert (voided.kind, voided.value, voided.revoked_at) == ("subject", user.user_id, int(clock.now))
    clock.now += 100
    assert registry.users.enable("ada", actor="t").unlocked_at == int(clock.now)
    registry.users.reset("ada", actor="t")
    (voided,) = read_definitions(registry.database).revocations
    assert voided.revoked_at == int(clock.now)
    clock.now += 30 * 86_400  # As long as sessions may last.
    registry.revocations.forget_expired()
    assert read_definitions(registry.database).revocations == (voided,)
    clock.now += 86_400 + 61
    registry.revocations.forget_expired()
    assert read_definitions(registry.database).revocations == ()


@control("3.5.8", "3.5.9", "IA-5", "IA-5(1)", "SC-12(1)")
def test_a_reset_gives_a_new_password_and_authenticator(registry):
    """The old ones are worth nothing, and the old password may not come back."""
    first = registry.users.create(UserDefinition(login="ada", name="Ada"), actor="t")
    second = registry.users.reset("ada", actor="t")
    user = registry.users.find("ada")
    assert not is_password(user.password_hash, first.password)
    assert is_password(user.password_hash, second.password)
    assert user.totp_secret != first.user.totp_secret
    with pytest.raises(ClientRejected, match="used before"):
        verify_new_password(first.password, "ada", (user.password_hash, *user.old_password_hashes))


@control("3.5.10", "IA-5(6)")
def test_no_record_of_a_change_holds_a_hash_or_secret(registry):
    """What goes into the log is read by auditors, for years."""
    new = registry.users.create(UserDefinition(login="ada", name="Ada"), actor="t")
    registry.users.set_password(new.user.user_id, "$argon2id$canary", actor=f"user:{new.user.user_id}")
    for change in registry.changes():
        for text in (change.before, change.after):
            assert not {"password_hash", "totp_secret", "old_password_hashes"} & json.loads(text).keys()
            assert "argon2" not in text
    assert [change.action for change in registry.changes()] == ["user_created", "user_password_changed"]


@control("3.5.7", "3.5.8", "IA-5(1)")
@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("Short1!", "characters"),
        ("alllowercaseletters", "three of"),
        ("Ada-is-the-best-1", "login"),
        ("A1!" * 100, "characters"),
    ],
)
def test_weak_passwords_are_refused_in_words(password, words):
    """NIST SP 800-171 3.5.7."""
    with pytest.raises(ClientRejected, match=words):
        verify_new_password(password, "ada", ())


def test_a_first_password_has_no_login_in_it(registry, monkeypatch):
    """Random letters may spell one; then others are drawn, however short the login is."""
    drawn = iter([base64.b32decode("XYADA" * 3 + "X") + bytes(2), b"\xff" * 12] * 2)
    with monkeypatch.context() as patch:
        patch.setattr("secrets.token_bytes", lambda size: next(drawn) if size == 12 else bytes(size))
        first = registry.users.create(UserDefinition(login="ada", name="Ada"), actor="t")
        second = registry.users.reset(first.user.user_id, actor="t")
    for new in (first, second):
        verify_new_password(new.password, "ada", ())
    assert next(drawn, None) is None
    for login in ("a", "7", "b-c"):
        assert login not in make_password(login).lower()


@given(st.text(max_size=24), st.text(max_size=24))
def test_edits_are_a_distance(before, after):
    """Nothing between equal texts, the same both ways, between the difference of the lengths and the longer length."""
    edits = count_edits(before, after)
    assert edits == count_edits(after, before)
    assert abs(len(before) - len(after)) <= edits <= max(len(before), len(after))
    assert (edits == 0) == (before == after)
    assert count_edits("kitten", "sitting") == 3


def test_codes_are_those_of_rfc_6238():
    """Appendix B, its last six digits."""
    secret = b"12345678901234567890"
    for at, code in ((59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")):
        assert make_code(secret, at // 30) == code
        assert find_step(secret, code, at, 0) == at // 30


@control("3.5.3", "IA-2(1)", "IA-2(2)")
def test_a_code_is_good_once_and_for_a_minute_and_a_half():
    """Section 5.2: a code that was used is refused; a neighbouring step is accepted for slow clocks."""
    secret, now = b"s" * 20, 3_000_000
    step = now // 30
    for neighbour in (step - 1, step, step + 1):
        assert find_step(secret, make_code(secret, neighbour), now, 0) == neighbour
    assert find_step(secret, make_code(secret, step), now, step) is None
    assert find_step(secret, make_code(secret, step - 2), now, 0) is None
    for nonsense in ("", "1", "é" * 6, "0" * 100):
        assert find_step(secret, nonsense, now, 0) is None
