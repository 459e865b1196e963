"""A request as authlib's server handles it: parsed strictly before, everything that will be asked for looked up before.

authlib decides synchronously and asks for clients and people while it does. Ours are known to another process. So what a
request can make it ask is looked up first (`authority.look_up`), and then it decides without a wait in between: of two
requests with one code, one is decided wholly before the other.
"""

from collections.abc import Callable

import msgspec
from authlib.oauth2.rfc6749 import OAuth2Request
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload

from security.clients import Client
from security.oauth.errors import ReusedGrant
from security.oauth.minting import Binding, MintedToken
from security.oauth.token_request import ParsedRequest
from security.users import User


class Known(msgspec.Struct, frozen=True):
    """What was looked up for one request."""

    client: Client | None
    """Of the id that the request claims."""
    people: dict[str, User | None]
    """By id."""

    def find_person(self, user_id: str) -> User | None:
        """The person of an id, if they may act now."""
        user = self.people[user_id]
        return None if user is None or user.is_disabled or user.user_id != user_id else user


class Voided(msgspec.Struct, frozen=True):
    """What every gateway must have been told is void before the answer leaves."""

    kind: str
    value: str
    expires_at: int


class AuthorityRequest(OAuth2Request):  # type: ignore[misc]  # authlib has no types
    """One request, and what comes of it beside the answer."""

    def __init__(self, method: str, uri: str, parsed: ParsedRequest, known: Known) -> None:
        super().__init__(method, uri)
        self.payload = BasicOAuth2Payload(parsed.parameters)
        self.parsed = parsed
        self.known = known
        self.binding: Binding | None = None
        self.minted: MintedToken | None = None
        self.reused: ReusedGrant | None = None
        self.voided: list[Voided] = []
        self.taken: list[Callable[[], None]] = []
        """What gives back what was spent for the answer, if that must not leave; the last one first."""

    @property
    def form(self) -> dict[str, str]:
        """Every parameter stands once."""
        return self.parsed.parameters
