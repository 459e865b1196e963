"""Intents: each recorded once, and then the engine that it is for gets a ticket, which only that one can check.

It goes to the engine directly, and names the worker by its link: no worker can have another's request let go. Its key is fresh for
each pair of lives of auditor and engine, and told to the engine first of all on its link.
"""

from appliance.auditor.ledger import Clock, Ledger
from appliance.auditor.outcomes import OutcomeDesk
from appliance.auditor.peer import Peer, Send, name_of
from appliance.auditor.reconciliation import Reconciliation
from appliance.auditor.requests import MAX_OPEN_INTENTS, OpenIntent, RequestBook
from appliance.messages.audit import AppendIntent, AppendRefused, IntentRecorded, Ticket
from audit.closing import prompt_tokens_of, shared_members
from audit.entry import Json
from audit.errors import MalformedEntry, NotPermitted
from audit.ticket import mint_ticket, new_ticket_key


class IntentDesk:
    """Owner of the ticket keys, and of what is known of intents that are on their way to the disk."""

    def __init__(
        self,
        ledger: Ledger,
        book: RequestBook,
        send: Send,
        clock: Clock,
        outcomes: OutcomeDesk,
        reconciliation: Reconciliation,
    ) -> None:
        self._ledger = ledger
        self._book = book
        self._send = send
        self._clock = clock
        self._outcomes = outcomes
        self._reconciliation = reconciliation
        self._ticket_keys: dict[Peer, bytes] = {}
        self._gateways: set[Peer] = set()
        self._request_uids_under_way: set[str] = set()

    def engine_came(self, engine: Peer) -> bytes:
        """The key of its tickets."""
        self._ticket_keys[engine] = new_ticket_key()
        return self._ticket_keys[engine]

    def engine_left(self, engine: Peer) -> bool:
        """Whether it was there."""
        return self._ticket_keys.pop(engine, None) is not None

    def gateway_came(self, gateway: Peer) -> None:
        """It may append."""
        self._gateways.add(gateway)

    def gateway_left(self, gateway: Peer) -> None:
        """What of it is still on its way is lost to it."""
        self._gateways.discard(gateway)

    def append(self, peer: Peer, message: AppendIntent, event: Json) -> None:
        """Record an intent; once it is durable the engine gets its ticket, and the gateway its answer.

        Raises: MalformedEntry, NotPermitted.
        """
        _verify_intent(message, event)
        if message.request_uid in self._request_uids_under_way or self._book.knows(message.request_uid):
            raise MalformedEntry(f"intent: the request id {message.request_uid!r} was used before")
        if len(self._book.open) >= MAX_OPEN_INTENTS:
            raise NotPermitted(f"intent: {len(self._book.open)} requests are open already")
        if self._engine(message.engine_instance) is None:
            reason = f"engine {message.engine_instance} is not there"
            self._send(peer, AppendRefused(message.correlation, "no_engine", reason))
            return
        subject = str(event["actor"].get("user", {}).get("uid", ""))
        shared, prompt_tokens = shared_members(event), prompt_tokens_of(event)
        self._request_uids_under_way.add(message.request_uid)
        try:
            self._ledger.add(
                event,
                name_of(peer),
                lambda index: self._note(peer, message, subject, shared, prompt_tokens, index),
                lambda reason: self._refuse(peer, message, reason),
            )
        except Exception:
            self._request_uids_under_way.discard(message.request_uid)
            raise

    def _refuse(self, peer: Peer, message: AppendIntent, reason: str) -> None:
        self._request_uids_under_way.discard(message.request_uid)
        self._send(peer, AppendRefused(message.correlation, "not_durable", reason))

    def _note(
        self, peer: Peer, message: AppendIntent, subject: str, shared: bytes, prompt_tokens: object, index: int
    ) -> None:
        self._request_uids_under_way.discard(message.request_uid)
        is_here = peer in self._gateways
        intent = OpenIntent(
            index, message.request_uid, name_of(peer), peer, message.engine_instance, shared, prompt_tokens
        )
        self._book.note_intent(intent, message.client_id, subject)
        self._reconciliation.note_intent()
        if not is_here:  # Its link ended while the record was on its way.
            self._outcomes.lose(peer)
            return
        engine = self._engine(message.engine_instance)
        if engine is not None:  # Else it is gone, and so is what it held.
            self._send(engine, self._ticket(self._ticket_keys[engine], peer.peer_instance, message, index))
        self._send(peer, IntentRecorded(message.correlation, index))

    def _ticket(self, key: bytes, worker: int, message: AppendIntent, index: int) -> Ticket:
        expires_at_ms = self._clock.utc_ms() + message.lifetime_ms
        mac = mint_ticket(
            key,
            worker=worker,
            request_id=message.request_id,
            index=index,
            model=message.model,
            prompt_digest=message.prompt_digest,
            token_limit=message.token_limit,
            expires_at_ms=expires_at_ms,
        )
        return Ticket(worker, message.request_id, index, message.model, message.token_limit, expires_at_ms, mac)

    def _engine(self, instance: int) -> Peer | None:
        # The latest link first: an older one of the same engine may not have been seen to end yet.
        for engine in reversed(self._ticket_keys):
            if engine.peer_instance == instance:
                return engine
        return None


def _verify_intent(message: AppendIntent, event: Json) -> None:
    """What the ticket will say must be what the record says.

    Raises: MalformedEntry.
    """
    own = event["unmapped"]["casemate"]
    actor, model = event.get("actor"), event.get("ai_model")
    pairs = {
        "request id": (message.request_uid, own.get("request_uid")),
        "client": (message.client_id, actor.get("app_uid") if isinstance(actor, dict) else None),
        "model": (message.model, model.get("name") if isinstance(model, dict) else None),
        "token limit": (message.token_limit, own.get("token_limit")),
    }
    for name, (said, recorded) in pairs.items():
        if said != recorded:
            raise MalformedEntry(f"intent: the {name} is {said!r} in the message and {recorded!r} in the event")
