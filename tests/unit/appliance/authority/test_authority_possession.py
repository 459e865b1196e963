"""A bound token at the gateway: only with its key, with a proof for this request, once, and with the server's nonce where one is
asked for.
"""

import base64
import json

import msgspec
import pytest
from joserfc.jwk import ECKey

from appliance.authority.token_check import AuthorityTokenCheck, PossessionRules
from appliance.gateway.errors import PeerUnavailable, Unauthenticated
from appliance.gateway.gate import Caller, Challenges, Gate
from appliance.gateway.identity import NonceRequired, Presented, ProofRefused, TokenIssuerUnavailable, TokenRefused
from appliance.gateway.routes import RouteTable
from appliance.messages.policy import KeyHolder
from security.oauth.access_token import AccessToken
from security.oauth.dpop import PROOF_LIFETIME_S, hash_token, thumbprint_of_certificate
from security.oauth.dpop_nonces import MemoryStart, make_nonce_key
from security.oauth.key_ring import KeyRing
from security.oauth.resource import AccessTokenValidator
from security.oauth.revocations import Revocation, RevocationList
from security.policy.replay import ReplayMemory
from security.scopes import Role, Scope
from security.static_keys import digest_static_key, make_static_key
from tests.support.oauth_house import proof_by

ISSUER = "https://127.0.0.1:8444"
RESOURCE = "https://127.0.0.1:8443"
URL = RESOURCE + "/v1/models"


class Clock:
    """Goes when it is told to."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


class Knowledge:
    """Policy, as far as a check asks it."""

    def __init__(self, clock):
        self.revocations = RevocationList(clock=clock)
        self.nonce_key = make_nonce_key()
        self.memory = MemoryStart(0.0)
        self.is_silent = False
        self._replays = ReplayMemory(clock=clock)

    def verify_fresh(self):
        if self.is_silent:
            raise PeerUnavailable("policy_unavailable", "policy is silent")

    async def check_key(self, digest, address):
        return None

    async def use_once(self, digest, lifetime_s):
        return self._replays.use(digest, lifetime_s)


class Possessor:
    """A client with a key and a token that is bound to it, before a gateway."""

    def __init__(self, house, nonce_lifetime_s):
        self.house = house
        self.clock = house.utc
        self.key = ECKey.generate_key("P-256")
        self.knowledge = Knowledge(house.utc)
        rules = PossessionRules(
            origins=frozenset({RESOURCE}), binds_privileged=False, nonce_lifetime_s=nonce_lifetime_s
        )

        class Published:
            async def fetch(self):
                async with house.client() as client:
                    return (await client.get("/jwks.json")).content

        ring = KeyRing(Published())
        validator = AccessTokenValidator(ring, issuer=ISSUER, audience=RESOURCE)
        self.check = AuthorityTokenCheck(ring, validator, rules, clock=house.utc)
        self.check.use_policy(self.knowledge)
        self.token = ""

    async def begin(self):
        proof = proof_by(self.key, self.clock, url=f"{ISSUER}/token")
        async with self.house.client() as client:
            auth = (self.house.issued.client.client_id, self.house.issued.secret)
            data = {"grant_type": "client_credentials"}
            answer = await client.post("/token", data=data, auth=auth, headers={"dpop": proof})
        assert answer.json()["token_type"] == "DPoP"
        self.token = answer.json()["access_token"]
        return self

    def proof(self, *, by=None, **claims):
        claims = {"ath": hash_token(self.token), "url": URL, "method": "GET", **claims}
        return proof_by(by or self.key, self.clock, **claims)

    def presented(self, *proofs, **changes):
        values = {"scheme": "dpop", "token": self.token, "method": "GET", "path": "/v1/models", "address": "192.0.2.1"}
        return Presented(**{**values, "proofs": proofs, **changes})


@pytest.fixture
async def possessor(house):
    return await Possessor(house, 0).begin()


@pytest.fixture
async def asked(house):
    """Before a gateway that asks for nonces."""
    return await Possessor(house, 60).begin()


async def test_a_bound_token_is_good_with_its_proof_once(possessor):
    """RFC 9449 section 7.1, section 11.1."""
    shown = possessor.presented(possessor.proof())
    assert (await possessor.check(shown)).client_id == possessor.house.issued.client.client_id
    with pytest.raises(ProofRefused, match="jti"):
        await possessor.check(shown)


@pytest.mark.parametrize(
    "claims",
    [
        {"ath": hash_token("other")}, {"ath": ...}, {"url": RESOURCE + "/v1/other"}, {"url": "https://evil.example/v1/models"},
        {"method": "POST"}, {"by": ECKey.generate_key("P-256")},
    ],
)  # fmt: skip
async def test_a_proof_for_something_else_is_refused(possessor, claims):
    """Another token, address, method or key."""
    with pytest.raises(ProofRefused):
        await possessor.check(possessor.presented(possessor.proof(**claims)))


async def test_a_bound_token_is_no_bearer_token_and_the_reverse(possessor, house):
    """Section 7.1: nobody downgrades it."""
    with pytest.raises(TokenRefused, match="scheme DPoP"):
        await possessor.check(possessor.presented(possessor.proof(), scheme="bearer"))
    loose = (await house.ask()).json()["access_token"]
    with pytest.raises(TokenRefused, match="scheme Bearer"):
        await possessor.check(possessor.presented(possessor.proof(ath=hash_token(loose)), token=loose))
    for proofs in ((), (possessor.proof(a=1), possessor.proof(a=2))):
        with pytest.raises(ProofRefused):
            await possessor.check(possessor.presented(*proofs))


@pytest.mark.parametrize(("kind", "what"), [("token", "jti"), ("client", "client_id"), ("subject", "sub")])
async def test_a_revoked_token_is_refused(possessor, kind, what):
    """By its id, or whom it was given to, also when it was accepted before; what came after is another's."""
    claims = json.loads(base64.urlsafe_b64decode(possessor.token.split(".")[1] + "=="))
    await possessor.check(possessor.presented(possessor.proof(first=1)))
    entry = Revocation(kind, claims[what], claims["iat"], claims["exp"])
    possessor.knowledge.revocations.replace([msgspec.structs.replace(entry, value="another"), entry])
    with pytest.raises(TokenRefused, match="revoked"):
        await possessor.check(possessor.presented(possessor.proof(second=1)))
    later = msgspec.structs.replace(entry, revoked_at=claims["iat"] - 1)
    possessor.knowledge.revocations.replace([later])
    if kind != "token":
        await possessor.check(possessor.presented(possessor.proof(third=1)))


@pytest.mark.parametrize(("role", "loose_is_good"), [(Role.USER, True), (Role.OPERATOR, False), (Role.AUDITOR, False)])
async def test_in_production_a_role_but_user_needs_a_bound_token(role, loose_is_good):
    """Whatever the authority gave: what somebody may have copied lets nobody act as more than a user."""

    class Good:
        def __init__(self, binding):
            self.binding = binding

        async def validate(self, token):
            names = ("client_id", "subject", "tenant", "issuer", "kid", "jti")
            told = dict.fromkeys(names, "x") | {"issued_at": 0, "expires_at": 1 << 40, "scopes": frozenset()}
            return AccessToken(role=role, **told, **self.binding)

    certificate = b"a certificate"
    asked = {"scheme": "bearer", "token": "a.b.c", "method": "GET", "path": "/v1/models", "address": "192.0.2.1"}
    shown = Presented(**asked, certificate=certificate)
    for binds in (True, False):
        rules = PossessionRules(origins=frozenset({RESOURCE}), binds_privileged=binds)
        bound = AuthorityTokenCheck(
            None, Good({"certificate_thumbprint": thumbprint_of_certificate(certificate)}), rules
        )
        loose = AuthorityTokenCheck(None, Good({}), rules)
        assert (await bound(shown)).role == role.value
        if loose_is_good or not binds:
            assert (await loose(shown)).role == role.value
        else:
            with pytest.raises(TokenRefused, match="bound to a key or certificate"):
                await loose(shown)
    with pytest.raises(TokenRefused, match="another client certificate"):
        await bound(msgspec.structs.replace(shown, certificate=b"another"))


async def test_while_policy_is_silent_no_token_is_believed(possessor):
    """It may have revoked what would be let in: not a key's holder, nor a token that was accepted before."""
    await possessor.check(possessor.presented(possessor.proof(first=1)))
    possessor.knowledge.is_silent = True
    for token in (possessor.token, "cm-" + "k" * 43):
        with pytest.raises(PeerUnavailable):
            await possessor.check(possessor.presented(possessor.proof(second=1), token=token))


async def test_a_static_key_is_a_bearers_and_gives_what_policy_says(possessor):
    """Asked of policy, by its digest, each time; with the scheme DPoP it would look like a token that is bound."""
    key, asked = make_static_key(), []

    async def check_key(digest, address):
        asked.append((digest, address))
        return KeyHolder(1, "key-1", "c", "acme", "user", "inference models.read", 2**40)

    possessor.knowledge.check_key = check_key
    shown = possessor.presented(token=key, scheme="bearer")
    holder = await possessor.check(shown)
    assert (holder.client_id, holder.subject, holder.tenant, holder.role, holder.token_id, holder.is_registered) == (
        "c", "c", "acme", "user", "key-1", True,
    )  # fmt: skip
    assert holder.scopes == {"inference", "models.read"}
    await possessor.check(shown)
    assert asked == [(digest_static_key(key), "192.0.2.1")] * 2
    with pytest.raises(TokenRefused, match="key is not valid"):
        await possessor.check(possessor.presented(possessor.proof(), token=key))
    assert len(asked) == 2


async def test_a_gateway_asks_for_its_nonce_and_gives_the_next(asked):
    """RFC 9449 section 9; a proof that lacked it is not used up."""
    with pytest.raises(NonceRequired) as required:
        await asked.check(asked.presented(asked.proof()))
    shown = asked.presented(asked.proof(nonce=required.value.nonce))
    assert (await asked.check(shown)).dpop_nonce == required.value.nonce
    with pytest.raises(ProofRefused, match="jti"):
        await asked.check(shown)
    asked.clock.now += 120
    with pytest.raises(NonceRequired):
        await asked.check(asked.presented(asked.proof(nonce=required.value.nonce, later=1)))


async def test_a_proof_older_than_policys_memory_needs_a_nonce(possessor):
    """Who was started again has forgotten what was used before; by a nonce of its own a proof is known to be later."""
    used = possessor.presented(possessor.proof())
    await possessor.check(used)
    possessor.knowledge = Knowledge(possessor.clock)
    monotonic = Clock(0.0)
    possessor.knowledge.memory = MemoryStart(possessor.clock.now + 1, monotonic_s=monotonic)
    possessor.check.use_policy(possessor.knowledge)
    with pytest.raises(NonceRequired) as required:
        await possessor.check(used)
    await possessor.check(possessor.presented(possessor.proof(nonce=required.value.nonce)))
    possessor.clock.now += 2
    assert (await possessor.check(possessor.presented(possessor.proof(later=1)))).dpop_nonce == ""
    possessor.clock.now -= 3600  # A clock that was set back: not for longer than a proof of before could live.
    with pytest.raises(NonceRequired):
        await possessor.check(possessor.presented(possessor.proof(back=1)))
    monotonic.now += PROOF_LIFETIME_S
    assert (await possessor.check(possessor.presented(possessor.proof(back=2)))).dpop_nonce == ""


async def test_without_the_shared_key_nothing_is_decided(asked):
    """Policy tells it when its link begins; until then it is not the client's fault."""
    asked.knowledge.nonce_key = None
    with pytest.raises(TokenIssuerUnavailable):
        await asked.check(asked.presented(asked.proof()))


async def test_a_gateway_that_asks_for_none_gives_none(possessor):
    """Whatever nonce a proof holds."""
    assert (await possessor.check(possessor.presented(possessor.proof(nonce="x")))).dpop_nonce == ""


async def test_the_answer_names_the_error_and_the_nonce(asked):
    """401, the challenge with `use_dpop_nonce`, and the header."""
    table = RouteTable()
    table.register("GET", "/v1/models", Scope.MODELS_READ, lambda exchange: None)
    gate = Gate(table, asked.check, Challenges("", ("ES256",)))
    headers = [(b"authorization", b"DPoP " + asked.token.encode()), (b"dpop", asked.proof().encode())]
    with pytest.raises(Unauthenticated) as refused:
        await gate.admit("GET", b"/v1/models", headers, Caller("192.0.2.1"))
    answer = dict(refused.value.headers)
    assert refused.value.code == "use_dpop_nonce"
    assert b'error="use_dpop_nonce"' in answer[b"www-authenticate"]
    assert answer[b"www-authenticate"].startswith(b"DPoP ")
    headers[1] = (b"dpop", asked.proof(nonce=answer[b"dpop-nonce"].decode()).encode())
    admitted = await gate.admit("GET", b"/v1/models", headers, Caller("192.0.2.1"))
    assert admitted.principal.dpop_nonce == answer[b"dpop-nonce"].decode()
