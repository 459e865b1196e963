"""An engine, an auditor and a policy for gateway tests, in this process: real messages, no sockets.

Every message crosses as msgpack through the edge's own codec, so that what the processes could not send cannot be sent here.
"""

import asyncio
import contextlib
import hashlib
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from appliance.errors import LinkClosed
from appliance.ipc.edges import EdgeCodec
from appliance.messages import audit, control, engine, grammar, policy, reading, stewardship
from audit.entry import Json, encode_canonical, parse_canonical
from audit.permissions import verify_permitted
from audit.ticket import mint_ticket, verify_ticket
from runtime.identifiers import PAGE_SIZE
from runtime.request import Finish, PackedTokens, PromptDelivery, RequestSummary, TokenDelivery, TokenLogprobs
from tests.support.model_folders import MODEL

RANKS = [
    engine.RankFacts(rank, "H100", f"GPU-{rank}", {"weights": 3 << 30, "kv_cache": 5 << 30, "left": 1 << rank})
    for rank in range(2)
]
CONTEXT_LENGTH = 512


class MemoryLink:
    """One end of a link between the gateway and a fake."""

    def __init__(self, gateway_side: bool, peer: control.Role, peer_instance: int = 0) -> None:
        self.peer_role: control.Role = peer if gateway_side else "gateway"
        self.peer_instance = peer_instance
        own: control.Role = "gateway" if gateway_side else peer
        self._codec = EdgeCodec(own, self.peer_role)
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self.other: MemoryLink
        self.closed = asyncio.Event()

    def send(self, message: Any) -> None:
        if self.closed.is_set():
            raise LinkClosed("closed")
        self.other._inbox.put_nowait(self.other._codec.decode(self._codec.encode(message)))

    async def receive(self) -> Any:
        message = await self._inbox.get()
        if message is None:
            raise LinkClosed("closed")
        return message

    async def serve(self, handle: Callable[[Any], None]) -> None:
        while True:
            handle(await self.receive())

    def close(self) -> None:
        for end in (self, self.other):
            if not end.closed.is_set():
                end.closed.set()
                end._inbox.put_nowait(None)


def link_pair(peer: control.Role, instance: int = 0) -> tuple[MemoryLink, MemoryLink]:
    """Both ends: the gateway's and the peer's."""
    ours, theirs = MemoryLink(True, peer, instance), MemoryLink(False, peer, instance)
    ours.other, theirs.other = theirs, ours
    return ours, theirs


@dataclass
class Reply:
    """What the fake engine answers: token ids of each choice, and how it goes about it."""

    token_ids: list[int]
    finish: Finish | None = field(default_factory=lambda: Finish("stop", 261))
    delay_s: float = 0.0
    per_step: int = 1


class FakeEngine:
    """Computes nothing: says what `reply` gives for a submit, once its ticket has come. Holds every rule that the real one does."""

    def __init__(self, ticket_key: bytes) -> None:
        self.ticket_key = ticket_key
        self.reply: Callable[[engine.Submit, int], Reply | engine.RequestRefused] = lambda submit, choice: Reply(
            [104, 105, 261]
        )
        self.submits: list[engine.Submit] = []
        self.cancels: list[engine.Cancel] = []
        self.aborts: list[engine.AbortIntent] = []
        self.num_flushes = 0
        self.context_length = CONTEXT_LENGTH
        self.cached_tokens = 0
        self.drafts = (0, 0, 0)
        """Of every request: passes that verified drafts, drafts, accepted ones."""
        self.last_token_age_ms = 10
        self.says_status = True
        self.others_wait_for: asyncio.Event | None = None
        """Every request but the first is computed after it."""
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        """While it is clear, no token comes."""
        self.link: MemoryLink | None = None
        self._used: set[int] = set()
        self._tickets: dict[int, asyncio.Future[audit.Ticket]] = {}
        self.keeps_back = True
        """Until the ticket has come, as every engine must."""
        self.is_burst = False
        """All tokens of an answer come in one message, as after a long wait for the ticket."""
        self.num_sent = 0
        """Messages with tokens."""
        self.withdrawn: list[int] = []
        """Requests that were cancelled as a whole before their tickets had come."""
        self._choices: dict[tuple[int, int], asyncio.Task[int]] = {}
        self._kept: dict[tuple[int, int], int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, link: MemoryLink) -> None:
        self.link = link
        link.send(
            engine.ModelFacts(MODEL, 280, self.context_length, [261], "fake-1", ranks=RANKS, has_unscaled_cache=True)
        )
        status = asyncio.create_task(self._say_status(link))
        try:
            while True:
                message = await link.receive()
                if isinstance(message, engine.Cancel):
                    self._cancel(link, message)
                elif isinstance(message, engine.AbortIntent):
                    self.aborts.append(message)
                elif isinstance(message, engine.FlushCache):
                    self.num_flushes += 1
                else:
                    self.submits.append(message)
                    task = asyncio.create_task(self._serve(link, message))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        except LinkClosed:
            return
        finally:
            status.cancel()
            for task in list(self._tasks):
                task.cancel()

    async def _say_status(self, link: MemoryLink) -> None:
        while not link.closed.is_set():
            if self.says_status:
                status = engine.EngineStatus(
                    self.last_token_age_ms,
                    1,
                    2,
                    max(100, self.context_length // PAGE_SIZE + 1),
                    60,
                    15,
                    30,
                    20,
                    5,
                    0,
                    True,
                    50,
                    40,
                    64,
                    12.5,
                    0.75,
                    20,
                    60,
                    30,
                    3,
                    1.5,
                    700,
                    80,
                    9,
                    3,
                )
                link.send(status)
            await asyncio.sleep(0.05)

    def take_ticket(self, ticket: audit.Ticket) -> None:
        """The auditor's link, as far as it matters here; a ticket may be here before its request."""
        waiting = self._ticket_of(ticket.request_id)
        if not waiting.cancelled():
            waiting.set_result(ticket)

    def _ticket_of(self, request_id: int) -> "asyncio.Future[audit.Ticket]":
        return self._tickets.setdefault(request_id, asyncio.get_running_loop().create_future())

    def _cancel(self, link: MemoryLink, cancel: engine.Cancel) -> None:
        self.cancels.append(cancel)
        ticket = self._ticket_of(cancel.request_id)
        if cancel.choice is None and not ticket.done():
            ticket.cancel()
            self.withdrawn.append(cancel.request_id)
            link.send(engine.RequestRefused(cancel.request_id, "withdrawn", "its worker withdrew it"))
        for key, task in self._choices.items():
            if key[0] == cancel.request_id and cancel.choice in (None, key[1]):
                if cancel.keep_tokens is not None:
                    self._kept[key] = cancel.keep_tokens
                task.cancel()

    def _spend(self, submit: engine.Submit, ticket: audit.Ticket) -> None:
        verify_ticket(
            self.ticket_key,
            ticket.mac,
            worker=0,
            request_id=submit.request_id,
            index=ticket.index,
            model=ticket.model,
            prompt_digest=hashlib.sha256(submit.prompt).digest(),
            token_limit=ticket.token_limit,
            expires_at_ms=ticket.expires_at_ms,
            now_ms=time.time_ns() // 1_000_000,
        )
        assert ticket.index not in self._used
        assert submit.n * submit.sampling.max_tokens <= ticket.token_limit
        self._used.add(ticket.index)

    async def _serve(self, link: MemoryLink, submit: engine.Submit) -> None:
        if self.keeps_back:
            self._spend(submit, await self._ticket_of(submit.request_id))
        replies = [self.reply(submit, choice) for choice in range(submit.n)]
        for reply in replies:
            if isinstance(reply, engine.RequestRefused):
                link.send(engine.RequestRefused(submit.request_id, reply.code, reply.message, reply.parameter))
                return
        if self.others_wait_for is not None and submit is not self.submits[0]:
            await self.others_wait_for.wait()
        num_prompt = len(submit.prompt) // 4
        # Its first number tells whose it is.
        embedding = struct.pack("<3f", num_prompt, 0.5, -1.0) if submit.wants_embedding else b""
        logprobs = None
        if submit.sampling.prompt_logprobs >= 0:
            logprobs = [None, *(_logprobs(number, submit.sampling.prompt_logprobs) for number in range(1, num_prompt))]
        link.send(
            engine.StepTokens(
                [PromptDelivery(submit.request_id, num_prompt, self.cached_tokens, logprobs, embedding)], [], []
            )
        )
        keys = [(submit.request_id, choice) for choice in range(submit.n)]
        for key, reply in zip(keys, replies, strict=True):
            assert isinstance(reply, Reply)
            self._choices[key] = asyncio.create_task(self._generate(link, submit, key[1], reply))
        counts = await asyncio.gather(*(self._choices[key] for key in keys), return_exceptions=True)
        total = sum(
            self._kept.pop(key, count if isinstance(count, int) else 0) for key, count in zip(keys, counts, strict=True)
        )
        for key in keys:
            self._choices.pop(key)
        with contextlib.suppress(LinkClosed):
            link.send(
                engine.StepTokens(
                    [],
                    [],
                    [RequestSummary(submit.request_id, num_prompt, self.cached_tokens, total, 0, total, *self.drafts)],
                )
            )

    async def _generate(self, link: MemoryLink, submit: engine.Submit, choice: int, reply: Reply) -> int:
        ids = reply.token_ids[: submit.sampling.max_tokens]
        finish = Finish("length") if len(ids) < len(reply.token_ids) else reply.finish
        if self.is_burst:
            kept = [TokenDelivery(submit.request_id, choice, [token]) for token in ids[:-1]]
            kept.append(TokenDelivery(submit.request_id, choice, ids[-1:], None, finish))
            link.send(engine.StepTokens([], kept, []))
            return len(ids)
        for start in range(0, len(ids), reply.per_step):
            await self.goes_on.wait()
            step = ids[start : start + reply.per_step]
            is_last = start + reply.per_step >= len(ids)
            logprobs = None
            if submit.sampling.logprobs >= 0:
                logprobs = [_logprobs(token_id, submit.sampling.logprobs) for token_id in step]
            if logprobs is None and start > 0 and not is_last and len(step) == 1:
                columns = struct.pack("<Q", submit.request_id), bytes([choice]), struct.pack("<I", step[0])
                link.send(engine.StepTokens([], [], [], PackedTokens(*columns)))
            else:
                delivery = TokenDelivery(submit.request_id, choice, step, logprobs, finish if is_last else None)
                link.send(engine.StepTokens([], [delivery], []))
            self.num_sent += 1
            await asyncio.sleep(reply.delay_s)
        if finish is None:
            await asyncio.Event().wait()
        return len(ids)


def _logprobs(token_id: int, top: int) -> TokenLogprobs:
    return TokenLogprobs(-0.5, [token_id, *range(97, 97 + top - 1)][:top], [-0.5 - place for place in range(top)])


class FakeAuditor:
    """Keeps every record that the gateway appends, after the same checks that the auditor makes."""

    def __init__(self, ticket_key: bytes) -> None:
        self.ticket_key = ticket_key
        self.records: list[tuple[str, Json]] = []
        self.uids: dict[str, tuple[int, str]] = {}
        self.outcomes: dict[int, int] = {}
        self.can_append = True
        self.body_keys: dict[str, stewardship.KeepBodyKey] = {}
        self.hash_roots: dict[tuple[str, str], stewardship.KeepHashRoot] = {}
        self.opened: list[stewardship.OpenBody] = []
        self.governed: list[stewardship.ProposeChange | stewardship.DecideChange] = []
        self.holds_intents = asyncio.Event()
        self.holds_intents.set()
        self.holds_answers = asyncio.Event()
        """To intents; their tickets are sent."""
        self.holds_answers.set()
        self.holds_outcomes = asyncio.Event()
        self.holds_outcomes.set()
        self.link: MemoryLink | None = None
        self.on_ticket: Callable[[audit.Ticket], None] = lambda ticket: None
        """The link to the engine."""

    def of_kind(self, kind: str) -> list[Json]:
        return [event for name, event in self.records if name == kind]

    async def run(self, link: MemoryLink) -> None:
        self.link = link
        status = asyncio.create_task(self._say_status(link))
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                task = asyncio.create_task(self._answer(link, await link.receive()))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except LinkClosed:
            return
        finally:
            status.cancel()

    async def _say_status(self, link: MemoryLink) -> None:
        while not link.closed.is_set():
            link.send(
                audit.AuditorStatus(
                    len(self.records), len(self.records), self.can_append, "" if self.can_append else "disk full"
                )
            )
            await asyncio.sleep(0.05)

    async def _answer(self, link: MemoryLink, message: Any) -> None:
        if isinstance(message, audit.AppendIntent):
            await self.holds_intents.wait()
        elif isinstance(message, audit.AppendOutcome):
            await self.holds_outcomes.wait()
        reply = self._reply(message)
        if isinstance(message, audit.AppendIntent):
            await self.holds_answers.wait()
        with contextlib.suppress(LinkClosed):
            link.send(reply)

    def _append(self, message: str, data: bytes) -> int:
        event = parse_canonical(data)
        kind = verify_permitted("gateway", message, event)
        self.records.append((kind.name, event))
        return len(self.records) - 1

    def _reply(self, message: Any) -> Any:
        number = message.correlation
        if isinstance(message, audit.FetchReceipt):
            return self._receipt(message)
        if isinstance(message, stewardship.FetchRules):
            return stewardship.RulesNow(number, b'{"retention_days":30}')
        if not self.can_append:
            return audit.AppendRefused(number, "not_durable", "disk full")
        if isinstance(message, stewardship.KeepBodyKey):
            self.body_keys[message.key_id] = message
            return stewardship.BodyKeyKept(number, bytes(32))
        if isinstance(message, stewardship.KeepHashRoot):
            self.hash_roots.setdefault((message.tenant, message.day), message)
            return stewardship.HashRootKept(number, self.hash_roots[message.tenant, message.day].root)
        if isinstance(message, stewardship.OpenBody):
            return self._open(message)
        if isinstance(message, stewardship.ProposeChange | stewardship.DecideChange):
            self.governed.append(message)
            return stewardship.RulesNow(number, b'{"retention_days":30}', "change-1")
        if isinstance(message, audit.AppendEvent):
            return audit.Recorded(number, self._append("event", message.event))
        if isinstance(message, audit.AppendOutcome):
            assert self.records[message.intent_index][0] == "inference_intent"
            assert message.intent_index not in self.outcomes
            index = self._append("outcome", message.event)
            self.outcomes[message.intent_index] = index
            return audit.Recorded(number, index)
        index = self._append("intent", message.event)
        self.uids[message.request_uid] = (index, message.client_id)
        expires_at_ms = time.time_ns() // 1_000_000 + message.lifetime_ms
        mac = mint_ticket(
            self.ticket_key,
            worker=0,
            request_id=message.request_id,
            index=index,
            model=message.model,
            prompt_digest=message.prompt_digest,
            token_limit=message.token_limit,
            expires_at_ms=expires_at_ms,
        )
        self.on_ticket(
            audit.Ticket(0, message.request_id, index, message.model, message.token_limit, expires_at_ms, mac)
        )
        return audit.IntentRecorded(number, index)

    def _open(self, message: stewardship.OpenBody) -> Any:
        if message.index >= len(self.records):
            return audit.AppendRefused(message.correlation, "not_found", "there is no such record")
        self.opened.append(message)
        _, event = self.records[message.index]
        purpose = "prompt" if "prompt_body" in event["unmapped"]["casemate"] else "answer"
        key = self.body_keys[event["unmapped"]["casemate"][f"{purpose}_body"]["key_id"]]
        record = encode_canonical(event)
        return stewardship.BodyShare(message.correlation, record, purpose, key.tenant, bytes(32), key.escrow)

    def _receipt(self, message: audit.FetchReceipt) -> Any:
        index, client_id = self.uids.get(message.request_uid, (-1, ""))
        if client_id != message.client_id:
            return audit.AppendRefused(message.correlation, "not_found", "there is no such request of this client")
        outcome = self.outcomes.get(index)
        record = audit.ReceiptRecord(index, b'{"kind":"intent"}', "proof")
        return audit.Receipt(
            message.correlation,
            record,
            None if outcome is None else audit.ReceiptRecord(outcome, b'{"kind":"outcome"}', "proof"),
            "log+00000000+key",
        )


class FakePolicy:
    """Grants blocks until its budget of output tokens is used up."""

    def __init__(self) -> None:
        self.block_tokens = 8
        self.budget_tokens = 1_000_000
        self.denial: tuple[str, str, int] | None = None
        self.reserves: list[policy.Reserve] = []
        self.lookups: list[policy.Reserve] = []
        self.lookups_left: policy.Left | None = None
        self.forbidden: set[str] = set()
        """Models that a listing leaves out."""
        self.settles: list[policy.Settle] = []
        self.num_extends = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.link: MemoryLink | None = None
        self._granted: dict[int, tuple[int, int]] = {}
        self._unrecorded: set[int] = set()
        """Settled, and perhaps settled again."""

    async def run(self, link: MemoryLink) -> None:
        self.link = link
        status = asyncio.create_task(self._say_status(link))
        try:
            while True:
                message = await link.receive()
                await self.answers.wait()
                answer = self._reply(message)
                if answer is not None:
                    link.send(answer)
        except LinkClosed:
            return
        finally:
            status.cancel()

    async def _say_status(self, link: MemoryLink) -> None:
        while not link.closed.is_set():
            link.send(policy.PolicyStatus(len(self._granted), 0))
            await asyncio.sleep(0.05)

    def _reply(self, message: Any) -> Any:
        if isinstance(message, policy.Settle):
            self.settles.append(message)
            if message.reservation not in self._unrecorded:
                self._granted.pop(message.reservation)
            if not message.is_recorded:
                self._unrecorded.add(message.reservation)
            return None
        if isinstance(message, policy.Resume):
            return policy.Denied(message.reserve.correlation, "client_disabled", "not resumed here", 0)
        if isinstance(message, policy.FilterModels):
            allowed = tuple(model for model in message.models if model not in self.forbidden)
            return policy.ModelsAllowed(message.reserve.correlation, allowed)
        if isinstance(message, policy.Lookup):
            self.lookups.append(message.reserve)
            if self.denial is None:
                return policy.LookupGranted(message.reserve.correlation, self.lookups_left)
            code, text, retry = self.denial
            return policy.Denied(message.reserve.correlation, code, text, retry, self.lookups_left)  # type: ignore[arg-type]
        if isinstance(message, policy.Reserve):
            self.reserves.append(message)
            if self.denial is not None:
                code, text, retry = self.denial
                return policy.Denied(message.correlation, code, text, retry)  # type: ignore[arg-type]
            reservation = len(self.reserves)
            self._granted[reservation] = (0, message.max_output_tokens)
        else:
            self.num_extends += 1
            reservation = message.reservation
        covered, limit = self._granted[reservation]
        block = min(self.block_tokens, limit - covered, self.budget_tokens)
        if block <= 0:
            return policy.Denied(message.correlation, "quota_exhausted", "no tokens are left", 60)
        self.budget_tokens -= block
        self._granted[reservation] = (covered + block, limit)
        return policy.Granted(message.correlation, reservation, covered + block)


class FakeCompiler:
    """Compiles nothing: a grammar is the structure itself, behind a word; a structure that holds a refused word is refused."""

    def __init__(self) -> None:
        self.asked: list[grammar.Compile] = []
        self.refusals: dict[str, tuple[grammar.CompileRefusal, str]] = {}
        self.link: MemoryLink | None = None

    async def run(self, link: MemoryLink) -> None:
        self.link = link
        with contextlib.suppress(LinkClosed):
            while True:
                message = await link.receive()
                self.asked.append(message)
                link.send(self._answer(message))

    def _answer(self, message: grammar.Compile) -> grammar.Compiled | grammar.CompileRefused:
        for word, (code, reason) in self.refusals.items():
            if word in message.structure:
                return grammar.CompileRefused(message.correlation, code, reason)
        return grammar.Compiled(message.correlation, b"grammar " + message.structure.encode())


class FakeReader:
    """Knows no record: answers with what `records` and `tiles` hold."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.records: dict[int, bytes] = {}
        self.tiles: dict[str, bytes] = {}
        self.refusal: tuple[str, str] | None = None
        self.part_bytes = reading.MAX_PART_BYTES
        self.link: MemoryLink | None = None

    async def run(self, link: MemoryLink) -> None:
        self.link = link
        link.send(reading.ReaderStatus(len(self.records), len(self.records), ""))
        with contextlib.suppress(LinkClosed):
            while True:
                message = await link.receive()
                self.asked.append(message)
                link.send(self._answer(message))

    def _answer(self, message: Any) -> Any:
        if self.refusal is not None:
            return reading.ReadRefused(message.correlation, *self.refusal)
        match message:
            case reading.FetchTile(path=path, offset=offset) if path in self.tiles:
                data = self.tiles[path]
                return reading.TilePart(message.correlation, data[offset : offset + self.part_bytes], len(data))
            case reading.FetchCheckpoint(cosigned=cosigned):
                return reading.CheckpointNote(message.correlation, b"cosigned\n" if cosigned else b"checkpoint\n")
            case reading.ReadRecord(index=index) if index in self.records:
                return self._found(message.correlation, {index: self.records[index]})
            case reading.SearchRecords() | reading.TailRecords():
                return self._found(message.correlation, self.records)
        return reading.ReadRefused(message.correlation, "not_found", "there is no such thing")

    def _found(self, correlation: int, records: dict[int, bytes]) -> reading.RecordsFound:
        found = [reading.FoundRecord(index, record) for index, record in records.items()]
        return reading.RecordsFound(correlation, found, None, len(self.records), len(self.records))
