"""Logs of a made-up installation, written by the product's own writer: requests of programs and people, sign-ins, refusals,
changes.

The same seed gives the same records but for the key; times run evenly from the first to the last.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from audit.append import LogWriter
from audit.changes import definition_changed_event
from audit.entry import Json, complete_entry
from audit.events import (
    Call,
    Caller,
    TokenCounts,
    intent_event,
    log_event,
    outcome_event,
    process_event,
    sign_in_event,
    token_issued_event,
    token_rejected_event,
)
from audit.reader import LogReader

ORIGIN = "log.example/synthetic"
_COMMITTED_AT_ONCE = 2048
_SEGMENT_BYTES = 32 << 20


def write_log(home: Path, num_records: int, *, first_ms: int, last_ms: int, seed: int = 1) -> LogReader:
    """A log of so many records below a folder, published, with its key and vkey beside it."""
    writer = LogWriter(home / "log", home / "log.key", origin=ORIGIN, segment_bytes=_SEGMENT_BYTES)
    batch: list[bytes] = []
    events = make_events(num_records, seed)
    chance = random.Random(seed)
    for index, event in enumerate(events):
        time_ms = first_ms + (last_ms - first_ms) * index // max(num_records - 1, 1)
        reporter = "auditor" if event["unmapped"]["casemate"]["kind"].startswith("log_") else "gateway-0"
        entry = complete_entry(
            event, index=index, time_ms=time_ms, reporter=reporter, log_name=ORIGIN, random=chance.randbytes(16)
        )
        batch.append(entry)
        if len(batch) == _COMMITTED_AT_ONCE or index == num_records - 1:
            writer.append(batch)
            writer.commit()
            batch = []
            if index % (32 * _COMMITTED_AT_ONCE) > 31 * _COMMITTED_AT_ONCE:
                writer.publish()
    writer.publish()
    writer.close()
    return LogReader(home / "log")


def make_events(num_records: int, seed: int) -> Iterator[Json]:
    """Events in the proportions of an ordinary day: mostly requests, two records each."""
    chance = random.Random(seed)
    made = 0
    yield log_event("log_started", log_name=ORIGIN, facts={"size": 0})
    made += 1
    while made < num_records:
        kind = chance.random()
        if kind < 0.9 and made + 2 <= num_records:
            yield from _request(chance, made)
            made += 2
        else:
            yield _other(chance, kind, made)
            made += 1


def _request(chance: random.Random, number: int) -> Iterator[Json]:
    program = f"client-{chance.randint(1, 12):02d}"
    person = f"user-{chance.randint(1, 60):016x}" if chance.random() < 0.6 else program
    caller = Caller(
        client_id=program,
        subject=person,
        tenant=f"tenant-{chance.randint(1, 4)}",
        role="user",
        token_issuer="https://127.0.0.1:8444",
        token_key_id="key-1",
        token_id=f"{number:032x}",
        address=f"10.0.{chance.randint(0, 3)}.{chance.randint(1, 250)}",
        port=chance.randint(1024, 65_535),
    )
    model = ("house-8b", "house-70b", "coder-32b")[min(int(chance.expovariate(1.2)), 2)]
    call = Call(
        request_uid=f"request-{number:012x}",
        trace_id=f"{number + 1:032x}",
        route="/v1/chat/completions",
        model=model,
        engine_build="sha256:" + "ab" * 32,
    )
    prompt_tokens, output_tokens = chance.randint(20, 4000), chance.randint(1, 900)
    yield intent_event(
        caller,
        call,
        parameters={"max_tokens": 1024, "temperature": "0.7", "seed": number},
        prompt_hash="cd" * 32,
        prompt_key_id="prompt/1",
        prompt_tokens=prompt_tokens,
        token_limit=1024,
        reservation=prompt_tokens + 256,
    )
    is_good = chance.random() < 0.985
    yield outcome_event(
        caller,
        call,
        intent_index=number,
        reason=("stop" if chance.random() < 0.8 else "length") if is_good else "engine_lost",
        is_success=is_good,
        counts=TokenCounts(prompt_tokens=prompt_tokens, cached_tokens=0, output_tokens=output_tokens),
        answer_hash="ef" * 32,
        answer_key_id="answer/1",
        http_status=200 if is_good else 500,
        first_token_ms=40,
        total_ms=40 + 9 * output_tokens,
    )


def _other(chance: random.Random, kind: float, number: int) -> Json:
    source = {"address": f"10.0.9.{chance.randint(1, 250)}", "port": 4711}
    if kind < 0.965:
        return token_issued_event(
            client_id=f"client-{chance.randint(1, 12):02d}",
            subject=f"client-{chance.randint(1, 12):02d}",
            tenant="tenant-1",
            issuer="https://127.0.0.1:8444",
            token_id=f"{number:032x}",
            token_key_id="key-1",
            scope="inference",
            expires_at_ms=0,
            **source,
        )
    if kind < 0.98:
        return sign_in_event(
            "user_signed_in",
            login=f"person{number % 60}",
            user_id=f"user-{number % 60:016x}",
            client_id="",
            detail="",
            **source,
        )
    if kind < 0.99:
        return token_rejected_event(route="/v1/models", code="token_expired", detail="the token has expired", **source)
    if kind < 0.995:
        facts = {"agree": 40, "differ": 0, "period_ms": 60_000, "result": "agree"}
        return log_event("log_reconciled", log_name=ORIGIN, facts=facts)
    if kind < 0.9995:
        return definition_changed_event(
            "client_created",
            target=f"client-{number:06d}",
            actor="os:operator",
            changed_at_ms=0,
            before="{}",
            after='{"role":"user"}',
        )
    return process_event("process_crashed", role="engine", instance=0, pid=4242, exit_code=-9)
