"""What the audit log is told of the authority's decisions: canonical events, without a secret or a token in them."""

from audit.entry import encode_event
from audit.event_form import aggregate
from audit.events import sign_in_event, token_issued_event, token_refused_event
from security.oauth.authority import Answer
from security.oauth.failure_limit import Suppressed

RATE_LIMITED = "rate_limited"


def build_decision_record(decision: Answer, address: str, port: int) -> bytes:
    """The record of one token that was issued, or refused."""
    minted = decision.minted
    if minted is None:
        client_id = _printable(decision.client_id or "")
        code = decision.error or "unknown"
        verb = "authenticated" if decision.authenticated else "not authenticated"
        detail = f"{verb} by {decision.auth_method or 'no method'}"
        return encode_event(
            token_refused_event(client_id=client_id, address=address, port=port, code=code, detail=detail)
        )
    return encode_event(
        token_issued_event(
            client_id=minted.client_id,
            subject=minted.subject,
            tenant=minted.tenant,
            address=address,
            port=port,
            issuer=minted.issuer,
            token_id=minted.jti,
            token_key_id=minted.kid,
            scope=minted.scope,
            expires_at_ms=minted.expires_at * 1000,
            grant_type=decision.grant_type,
            actor=minted.client_id if minted.actors else "",
            bound_to=minted.bound_to,
        )
    )


def build_sign_in_record(
    kind: str, login: str, user_id: str, address: str, port: int, detail: str, *, client_id: str = ""
) -> bytes:
    """The record of a sign-in that was let through or refused, of a sign-out, or of a token that came back."""
    event = sign_in_event(
        kind,
        login=_printable(login),
        user_id=user_id,
        client_id=_printable(client_id),
        address=address,
        port=port,
        detail=detail,
    )
    return encode_event(event)


def build_suppressed_record(suppressed: Suppressed, now_ms: int) -> bytes:
    """The record of attempts that were only counted because their source had failed too often."""
    source = "" if suppressed.source == "*" else suppressed.source
    detail = f"{suppressed.attempts} further attempts were refused unseen"
    client_id = _printable(suppressed.client_id)
    event = token_refused_event(client_id=client_id, address=source, port=0, code=RATE_LIMITED, detail=detail)
    aggregate(event, suppressed.attempts, now_ms - suppressed.first_ago_ms, now_ms - suppressed.last_ago_ms)
    return encode_event(event)


def _printable(text: str) -> str:
    """What an unknown sender claims is shown, but cannot break a line or a terminal."""
    return "".join(character if " " <= character <= "~" else "?" for character in text)
