"""Tokens of issuers elsewhere: each product's shape, what is mapped, and that an ID token never opens anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.errors import TokenRejected
from security.oauth.profiles import MAX_VALUES, PROFILE_NAMES, SHAPES, ForeignProfile, Mapping
from security.scopes import GRANTABLE, Role, Scope
from tests.support.controls import control

NOW = 1_800_000_000
MAPPING = Mapping(
    name="corp",
    issuer="https://idp.example",
    audience="api://casemate",
    tenant="acme",
    roles={"llm-users": Role.USER, "llm-ops": Role.OPERATOR},
    default_role=None,
    scopes={"Casemate.Ask": Scope.INFERENCE, "Casemate.Metrics": Scope.METRICS_READ},
)
COMMON = {"iss": "https://idp.example", "aud": "api://casemate", "sub": "ada", "iat": NOW, "exp": NOW + 3600}
TOKENS = {
    "rfc9068": {"client_id": "app", "jti": "j", "scope": "Casemate.Ask other", "groups": ["llm-users", "x"]},
    "entra": {"azp": "app", "uti": "j", "scp": "Casemate.Ask", "roles": ["llm-users"], "ver": "2.0", "tid": "t"},
    "adfs": {"appid": "app", "jti": "j", "scp": "Casemate.Ask", "role": "llm-users"},
    "okta": {"cid": "app", "jti": "j", "scp": ["Casemate.Ask"], "groups": ["llm-users"]},
    "keycloak": {
        "azp": "app", "jti": "j", "scope": "openid Casemate.Ask", "typ": "Bearer", "realm_access": {"roles": ["llm-users"]},
    },
}  # fmt: skip


def parse(name, claims, **mapping):
    values = {field: getattr(MAPPING, field) for field in MAPPING.__struct_fields__} | mapping
    profile = ForeignProfile(shape=SHAPES[name], mapping=Mapping(**values))
    return profile.parse(claims, "kid", NOW)


@control("AC-5", "AC-6")
@pytest.mark.parametrize(
    ("name", "changes", "is_program"),
    [
        *((name, {}, False) for name in PROFILE_NAMES),
        *((name, {"sub": "app"}, True) for name in PROFILE_NAMES),
        *((name, {"scope": ..., "scp": ...}, True) for name in PROFILE_NAMES),
        ("entra", {"scp": ..., "idtyp": "app", "sub": "object-of-app"}, True),
        ("entra", {"idtyp": "app", "sub": "object-of-app"}, True),
        ("entra", {"idtyp": "user"}, False),
        ("keycloak", {"preferred_username": "service-account-app", "sub": "uuid"}, True),
        ("keycloak", {"preferred_username": "ada"}, False),
    ],
)
def test_a_program_is_known_under_whatever_name(name, changes, is_program):
    """Entra and Keycloak name it as subject by another id than as client; and people alone grant scopes."""
    claims = {**COMMON, **TOKENS[name], **changes}
    assert parse(name, {key: value for key, value in claims.items() if value is not ...}).is_program == is_program


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_who_acts_for_somebody_is_named(name):
    """RFC 8693 section 4.1; and whatever else stands there is no token."""
    delegated = {**COMMON, **TOKENS[name], "act": {"sub": "agent", "act": {"sub": "first"}}}
    assert parse(name, delegated).actors == ("corp:agent", "corp:first")
    with pytest.raises(TokenRejected, match="act"):
        parse(name, {**delegated, "act": "agent"})


def test_every_profile_has_an_example_here():
    """A new one would need one too."""
    assert TOKENS.keys() == set(PROFILE_NAMES) == SHAPES.keys()


@control("AC-2(1)", "IA-4(4)", "IA-8", "IA-8(2)", "IA-8(4)")
@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_an_access_token_of_each_product_is_understood(name):
    """With its own claims, and names that cannot be those of anybody here."""
    token = parse(name, {**COMMON, **TOKENS[name]})
    assert (token.client_id, token.subject, token.tenant) == ("corp:app", "corp:ada", "acme")
    assert (token.role, token.scopes, token.jti) == (Role.USER, {Scope.INFERENCE}, "j")
    assert not token.is_registered


@pytest.mark.parametrize("values", [["llm-users", ["x"]], ["llm-users", 3], ["llm-users"] * (MAX_VALUES + 1), 3])
@pytest.mark.parametrize(("name", "wrap"), [("okta", "groups"), ("entra", "roles"), ("keycloak", "realm_access")])
def test_roles_are_texts_and_not_many(name, wrap, values):
    """Whatever else a provider puts there is refused as a token, and is no fault of ours."""
    claims = {**COMMON, **TOKENS[name], wrap: {"roles": values} if wrap == "realm_access" else values}
    with pytest.raises(TokenRejected, match="expected"):
        parse(name, claims)


@pytest.mark.parametrize("name", PROFILE_NAMES)
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"iss": "https://other.example"}, "iss"),
        ({"aud": "api://other"}, "aud"),
        ({"aud": ...}, "aud"),
        ({"exp": NOW - 60}, "exp"),
        ({"exp": NOW + 200_000}, "exp"),
        ({"nbf": NOW + 60}, "nbf"),
        ({"iat": NOW + 60}, "iat"),
        ({"at_hash": "h"}, "ID token"),
        ({"cnf": {"kid": "x"}}, "cnf"),
    ],
)
def test_what_is_wrong_is_refused_whatever_the_product(name, changes, match):
    """Signature and header aside, which are checked before."""
    claims = {**COMMON, **TOKENS[name], **changes}
    with pytest.raises(TokenRejected, match=match):
        parse(name, {key: value for key, value in claims.items() if value is not ...})


@pytest.mark.parametrize("name", sorted({*PROFILE_NAMES} - {"adfs"}))
def test_a_token_of_nobody_is_refused(name):
    """All but AD FS name a subject in each."""
    with pytest.raises(TokenRejected, match="sub"):
        parse(name, {key: value for key, value in {**COMMON, **TOKENS[name]}.items() if key != "sub"})


@pytest.mark.parametrize("name", sorted({*PROFILE_NAMES} - {"keycloak"}))
def test_a_nonce_tells_an_id_token(name):
    """Keycloak tells by its own claim, and before version 24 has the nonce in both."""
    with pytest.raises(TokenRejected, match="ID token"):
        parse(name, {**COMMON, **TOKENS[name], "nonce": "n"})
    assert parse("keycloak", {**COMMON, **TOKENS["keycloak"], "nonce": "n"}).subject == "corp:ada"


def test_a_token_of_keycloak_that_is_bound_says_so_in_its_type():
    """`DPoP` where it was asked for with a proof; nothing else is an access token."""
    thumbprint = "A" * 43
    bound = {**COMMON, **TOKENS["keycloak"], "typ": "DPoP", "cnf": {"jkt": thumbprint}}
    assert parse("keycloak", bound).key_thumbprint == thumbprint
    for other in ("ID", "Refresh", "Offline", "Logout", None, ["Bearer"]):
        with pytest.raises(TokenRejected):
            parse("keycloak", {**bound, "typ": other})


ADFS = {
    "aud": "microsoft:identityserver:api", "iss": "http://fs.example/adfs/services/trust", "iat": NOW, "exp": NOW + 3600,
    "apptype": "Confidential", "appid": "60b3d106", "authmethod": "urn:oasis:names:tc:SAML:2.0:ac:classes:X509",
    "auth_time": "2027-01-15T08:00:00.918Z", "ver": "1.0", "scp": "openid Casemate.Ask", "group": ["llm-users", "staff"],
}  # fmt: skip


def test_a_token_of_ad_fs_has_no_id_and_names_whom_its_rules_name():
    """As AD FS gives them without rules for more: no `jti`, no `sub`, a time of sign-in in words."""

    def understand(**changes):
        return parse("adfs", {**ADFS, **changes}, issuer=ADFS["iss"], audience=ADFS["aud"])

    token = understand()
    assert token.subject == token.client_id == "corp:60b3d106"
    assert token.jti != understand(iat=NOW - 1).jti
    assert understand(upn="ada@corp.example").subject == "corp:ada@corp.example"
    assert understand(sub="E8u/x=", upn="ada@corp.example", jti="j").subject == "corp:E8u/x="
    with pytest.raises(TokenRejected, match="ID token"):
        parse("adfs", {**ADFS, "aud": "60b3d106"}, issuer=ADFS["iss"], audience="60b3d106")


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_id_tokens_are_refused(name):
    """They name the program as audience and have no client; Keycloak's say so."""
    claims = {**COMMON, **TOKENS[name]}
    for client in SHAPES[name].clients:
        claims.pop(client, None)
    with pytest.raises(TokenRejected):
        parse(name, claims)
    with pytest.raises(TokenRejected):
        parse("keycloak", {**COMMON, **TOKENS["keycloak"], "typ": "ID"})


def test_roles_are_what_is_mapped_and_one_at_most():
    """None is refused, unless the mapping has a default; two are refused."""
    claims = {**COMMON, **TOKENS["entra"]}
    for roles in ([], ["strangers"], ["admin"]):
        with pytest.raises(TokenRejected, match="roles"):
            parse("entra", {**claims, "roles": roles})
        assert parse("entra", {**claims, "roles": roles}, default_role=Role.USER).role is Role.USER
    with pytest.raises(TokenRejected, match="one role"):
        parse("entra", {**claims, "roles": ["llm-users", "llm-ops"]})
    assert parse("entra", {**claims, "roles": ["llm-ops"], "scp": "Casemate.Ask Casemate.Metrics"}).scopes == {
        Scope.METRICS_READ
    }


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_tenants_are_what_is_mapped_and_one_at_most(name):
    """By a claim that is named, or by groups. Who is of none is refused, unless the mapping has a default; two are refused."""
    claims = {**COMMON, **TOKENS[name]}
    mapped = {"tenants": {"Finance": "finance", "Sales": "sales", "FIN 2": "finance"}, "tenant_claim": "org.department"}
    for department, tenant in (("Finance", "finance"), (["x", "Sales"], "sales"), (["Finance", "FIN 2"], "finance")):
        assert parse(name, {**claims, "org": {"department": department}}, **mapped).tenant == tenant
    for nobody in ("Research", "FIN", "finance", [], None):
        of_none = {**claims, "org": {"department": nobody}, "tenant": "finance"}
        assert parse(name, of_none, **mapped).tenant == "acme"
        with pytest.raises(TokenRejected, match="tenant: none"):
            parse(name, of_none, **mapped, tenant=None)
    with pytest.raises(TokenRejected, match="tenant: more than one"):
        parse(name, {**claims, "org": {"department": ["Finance", "Sales"]}}, **mapped)
    for odd in (7, {"Finance": 1}, [["Finance"]], True):
        with pytest.raises(TokenRejected, match="expected"):
            parse(name, {**claims, "org": {"department": odd}}, **mapped)
    assert parse(name, {**claims, "org": 7}, **mapped).tenant == "acme"
    assert parse(name, claims, tenants={"llm-users": "staff"}).tenant == "staff"
    # Names of claims that some products want to be addresses have dots of their own.
    named = {"tenants": {"7": "finance"}, "tenant_claim": "https://acme.example/org"}
    assert parse(name, {**claims, "https://acme.example/org": "7"}, **named).tenant == "finance"


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_a_group_with_spaces_is_one_group(name):
    """AD FS gives a lone group as text. Its words are no groups: whoever may name one must not become an operator by it."""
    claims = {**COMMON, **TOKENS[name], "groups": "llm-ops of the month"}
    claims = {key: value for key, value in claims.items() if key not in ("roles", "role", "realm_access")}
    with pytest.raises(TokenRejected, match="roles"):
        parse(name, claims)
    assert parse(name, claims, roles={"llm-ops of the month": Role.USER}).role is Role.USER


def test_scopes_never_exceed_the_role_and_an_applications_own_token_has_its_roles():
    """`inference` for an operator is nothing; without a scope claim the role alone says."""
    claims = {**COMMON, **TOKENS["entra"], "roles": ["llm-ops"]}
    assert parse("entra", claims).scopes == frozenset()
    del claims["scp"]
    assert parse("entra", claims).scopes == GRANTABLE[Role.OPERATOR]
    own = parse("entra", {**claims, "sub": "app"})
    assert own.subject == own.client_id == "corp:app"


@given(
    st.dictionaries(
        st.sampled_from(["roles", "scp", "azp", "sub", "uti", "groups", "cnf", "realm_access"]),
        st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.lists(st.text(max_size=5) | st.integers(), max_size=3)
        | st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    )
)  # fmt: skip
def test_nothing_but_the_family_escapes(changes):
    """Whatever type a claim has."""
    for name in PROFILE_NAMES:
        try:
            parse(name, {**COMMON, **TOKENS[name], **changes})
        except TokenRejected:
            continue
