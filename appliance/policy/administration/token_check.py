"""Who may administer: the gateway's own check of tokens, with the authority's keys as it told them and revocations at hand.

No network is needed for it: the policy process has none. Static keys are for role `user` only, so they are never good here.
"""

import time

from appliance.authority.addresses import certificate_names, issuer_of, resource_of
from appliance.authority.token_check import AuthorityTokenCheck, PossessionRules
from appliance.config import Configuration
from appliance.messages.policy import KeyHolder
from appliance.policy.authority_desk import AuthorityDesk
from appliance.policy.store import DefinitionsStore
from security.oauth.dpop_nonces import MemoryStart, make_nonce_key
from security.oauth.key_ring import KeyRing
from security.oauth.resource import AccessTokenValidator
from security.oauth.revocations import RevocationList
from security.policy.definitions import Definitions
from security.policy.replay import ReplayMemory


class OwnKnowledge:
    """What a gateway asks policy about, known here. Satisfies `appliance.authority.token_check.PolicyKnowledge`."""

    def __init__(self, store: DefinitionsStore, replays: ReplayMemory) -> None:
        self._store = store
        self._replays = replays
        self.revocations = RevocationList()
        self.nonce_key: bytes | None = make_nonce_key()
        self.memory = MemoryStart(time.time())
        store.subscribe(self._note)

    def verify_fresh(self) -> None:
        """Raises: SecurityUnavailable while the definitions cannot be read."""
        _ = self._store.current

    async def check_key(self, digest: bytes, address: str) -> KeyHolder | None:
        """Never good here."""
        return None

    async def use_once(self, digest: bytes, lifetime_s: int) -> bool:
        """Whether this is used for the first time, at any listener."""
        return self._replays.use(digest, lifetime_s)

    def _note(self, definitions: Definitions) -> None:
        self.revocations.replace(definitions.revocations)


def build_admin_check(
    configuration: Configuration, desk: AuthorityDesk, store: DefinitionsStore, replays: ReplayMemory
) -> AuthorityTokenCheck:
    """The check of the admin listener. Raises: StartRefused."""
    keys = KeyRing(desk)
    validator = AccessTokenValidator(
        keys, issuer=issuer_of(configuration), audience=resource_of(configuration), clock=time.time
    )
    port = configuration.administration.port
    names = (f"[{name}]" if ":" in name else name for name in certificate_names(configuration))
    rules = PossessionRules(
        origins=frozenset(f"https://{name}:{port}" for name in names),
        binds_privileged=configuration.mode == "production",
        nonce_lifetime_s=configuration.authority.dpop_nonce_lifetime_s,
    )
    check = AuthorityTokenCheck(keys, validator, rules)
    check.use_policy(OwnKnowledge(store, replays))
    return check
