"""The console as a client of gateway and admin API: each request with the token of the person whose session it is, and a proof.

Nothing is decided here: who may do what, the other side says, and its words are shown. A token that is about to end is replaced
first, once however many pages ask (a refresh token is good once).
"""

import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec

from appliance.console.errors import Declined, SessionOver
from appliance.console.sessions import Session
from appliance.console.tokens import REFRESH_AHEAD_S, Tokens
from security.errors import SecurityUnavailable
from security.oauth.https_client import HttpsAnswer
from security.oauth.proving import ProofKey

Listener = Literal["gateway", "administration"]


class Origin(Protocol):
    """What is needed of `security.oauth.https_client.HttpsOrigin`."""

    origin: str

    async def ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> HttpsAnswer:
        """Raises: SecurityUnavailable."""


class Refresher(Protocol):
    """What is needed of `tokens.AuthorityClient`."""

    async def refresh(self, tokens: Tokens, proof_key: ProofKey) -> Tokens:
        """Raises: SessionOver, SecurityUnavailable."""


class ApplianceApi:
    """Asks for people."""

    def __init__(
        self, origins: dict[Listener, Origin], authority: Refresher, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._origins = origins
        self._authority = authority
        self._clock = clock
        self._nonces: dict[Listener, str] = {}

    async def get(self, session: Session, listener: Listener, path: str) -> Any:
        """A document. Raises: Declined, SessionOver, SecurityUnavailable."""
        return _parse(await self.ask(session, listener, "GET", path))

    async def get_readiness(self, session: Session) -> Any:
        """What `/ready` says; "not ready" is an answer, too. Raises: Declined, SessionOver, SecurityUnavailable."""
        return _parse(await self.ask(session, "gateway", "GET", "/ready", accepts=(503,)))

    async def send(self, session: Session, listener: Listener, method: str, path: str, body: Any) -> Any:
        """A change or a search. Raises: Declined, SessionOver, SecurityUnavailable."""
        return _parse(await self.ask(session, listener, method, path, msgspec.json.encode(body)))

    async def ask(
        self,
        session: Session,
        listener: Listener,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        accepts: tuple[int, ...] = (),
    ) -> HttpsAnswer:
        """One request, once more where the other side asks for a nonce (RFC 9449 section 9), or the token ended early.

        Raises: Declined, SessionOver, SecurityUnavailable.
        """
        await self._refresh(session)
        for attempt in range(3):
            answer = await self._ask_once(session, listener, method, path, body)
            self._nonces[listener] = answer.headers.get("DPoP-Nonce") or self._nonces.get(listener, "")
            if answer.status != 401:
                break
            if _code_of(answer)[0] != "use_dpop_nonce":
                if attempt:
                    raise SessionOver("the token is refused")
                await self._refresh(session, at_once=True)
        if not (200 <= answer.status < 300 or answer.status in accepts):
            code, message = _code_of(answer)
            if answer.status >= 500:
                raise SecurityUnavailable(f"{listener} answered {answer.status} {code}: {message}")
            raise Declined(answer.status, code, message)
        return answer

    async def _ask_once(
        self, session: Session, listener: Listener, method: str, path: str, body: bytes | None
    ) -> HttpsAnswer:
        origin, token = self._origins[listener], session.tokens.access_token
        proof = session.key.prove(method, origin.origin + path, token=token, nonce=self._nonces.get(listener, ""))
        headers = {"Authorization": f"DPoP {token}", "DPoP": proof}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return await origin.ask(method, path, body, headers)

    async def _refresh(self, session: Session, *, at_once: bool = False) -> None:
        before = session.tokens
        async with session.refreshing:
            if session.tokens is not before:
                return  # Another page was first.
            if at_once or before.expires_at - self._clock() < REFRESH_AHEAD_S:
                session.tokens = await self._authority.refresh(before, session.key)


def _parse(answer: HttpsAnswer) -> Any:
    try:
        return msgspec.json.decode(answer.body)
    except msgspec.MsgspecError as error:
        raise SecurityUnavailable(f"an answer of the appliance's cannot be read: {error}") from error


def _code_of(answer: HttpsAnswer) -> tuple[str, str]:
    """Code and words of an error, in the form that the gateway's have."""
    try:
        error = msgspec.json.decode(answer.body)["error"]
        return str(error["code"]), str(error["message"])[:500]
    except (msgspec.MsgspecError, KeyError, TypeError):
        return str(answer.status), f"refused with status {answer.status}"
