"""Every event builder against the OCSF schema, whose rules are compiled here from its own files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from audit import changes, closing, events
from audit.entry import complete_entry, encode_event, parse_canonical
from audit.errors import MalformedEntry, NotPermitted
from audit.permissions import AUDITOR, ENTITY_MANAGEMENT, KINDS, READER, kind_of, verify_permitted
from audit.summary import summarize
from tests.support.controls import control

CALLER = events.Caller(
    client_id="demo", subject="alice", tenant="t1", role="user", token_issuer="https://issuer", token_key_id="k1",
    token_id="jti-1", address="2001:db8::1", port=4711,
)  # fmt: skip
CALL = events.Call(
    request_uid="req-1",
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    route="/v1/chat/completions",
    model="m",
    engine_build="b1",
)
COUNTS = events.TokenCounts(prompt_tokens=12, cached_tokens=4, output_tokens=7)


def make_intent() -> dict[str, Any]:
    body = {"day": "2026-11-25", "key_id": "00", "length": 5, "offset": 0, "sha256": "00"}
    return events.intent_event(
        CALLER, CALL, parameters={"temperature": "0.7", "max_tokens": 9}, prompt_hash="00", prompt_key_id="k",
        prompt_tokens=12, token_limit=9, reservation=3, body=body,
    )  # fmt: skip


def make_outcome(first_token_ms: int | None = 5) -> dict[str, Any]:
    return events.outcome_event(
        CALLER, CALL, intent_index=3, reason="stop", is_success=True, counts=COUNTS, answer_hash="00", answer_key_id="k",
        http_status=200, first_token_ms=first_token_ms, total_ms=80,
    )  # fmt: skip


def make_events() -> dict[str, dict[str, Any]]:
    """One event of every kind in the table."""
    intent = complete_entry(make_intent(), index=3, time_ms=1, reporter="gateway/0", log_name="o", random=bytes(16))
    engine = closing.engine_counts(COUNTS, "stop")
    found = {
        "inference_intent": make_intent(),
        "inference_outcome": make_outcome(),
        "inference_denied": events.denied_event(CALLER, CALL, code="quota_exhausted", detail="d", http_status=429),
        "inference_late_count": closing.late_count_event(parse_canonical(intent), 3, engine),
        "response_deleted": events.request_event("response_deleted", CALLER, CALL, facts={"response_id": "resp-1"}),
        "cache_flushed": events.request_event("cache_flushed", CALLER, CALL, facts={}),
        "token_rejected": events.token_rejected_event(
            address="10.0.0.1", port=1, route="/v1/models", code="expired", detail="d",
            num_times=3, first_ms=1_760_000_000_000, last_ms=1_760_000_004_000,
        ),
        "token_issued": events.token_issued_event(
            client_id="demo", subject="demo", tenant="t1", address="10.0.0.1", port=1, issuer="i", token_id="j",
            token_key_id="k", scope="inference", expires_at_ms=5,
        ),
        "token_refused": events.token_refused_event(client_id="", address="nowhere", port=1, code="invalid_client", detail="d"),
    }  # fmt: skip
    for kind in ("process_started", "process_stopped", "process_crashed", "process_restarted"):
        found[kind] = events.process_event(kind, role="engine", instance=0, pid=7, detail="d", exit_code=1)
    for kind, row in KINDS.items():
        if row.roles == {"policy"} and kind != "policy_loaded":
            found[kind] = changes.definition_changed_event(
                kind, target="user-1", actor="os:root", changed_at_ms=5, before="{}", after='{"role":"admin"}'
            )
        elif row.roles == {"authority"} and kind not in found:
            found[kind] = events.sign_in_event(
                kind, login="ada", user_id="user-1", client_id="cli", address="10.0.0.1", port=1, detail="d"
            )
    for kind in ("model_loaded", "model_unloaded", "policy_loaded"):
        found[kind] = events.configuration_event(kind, name="m", digest="sha256:00", detail="d")
    for kind in events.HOST_KINDS:
        found[kind] = events.host_event(
            kind, name="m", digest="sha256:00", actor="ada", at_ms=5, facts={"approvals": 2}, detail="d"
        )
    for kind in KINDS:
        if KINDS[kind].class_uid == ENTITY_MANAGEMENT and kind not in found:
            found[kind] = changes.change_event(
                kind, entity_type="setting", entity_uid="quota.demo", actor="root", before={"tokens": 5},
                after={"tokens": 7}, approvers=("ada", "bob"), reason="asked for",
            )  # fmt: skip
    found["configuration_loaded"] = changes.configuration_loaded_event(
        digest="sha256:00", previous_digest="sha256:01", mode="development", lacks=("witness",)
    )
    for kind in KINDS:
        if kind.startswith("log_"):
            found[kind] = events.log_event(kind, log_name="o", facts={"size": 1}, detail="d")
    auditor = changes.Auditor(client_id="c", subject="ada", tenant="t1", token_id="jti-1", address="10.0.0.1", port=1)
    found["body_opened"] = changes.body_opened_event(
        auditor, index=3, purpose="prompt", tenant="t1", key_id="00", sha256="00"
    )
    found["log_searched"] = changes.reading_event(auditor, log_name="o", what="search", facts={"kind": "log_full"})
    return found


class Schema:
    """required, enum, at_least_one, unknown-attribute and deprecation rules of OCSF, from its JSON files."""

    def __init__(self, path: Path) -> None:
        self.files = json.loads(path.read_text())
        self.dictionary = self.files["dictionary.json"]["attributes"]
        self.types = self.files["dictionary.json"]["types"]["attributes"]
        self.by_uid = {}
        for name, file in self.files.items():
            if name.startswith("events/") and "uid" in file:
                category = {"system": 1, "findings": 2, "iam": 3, "network": 4, "discovery": 5, "application": 6}
                group = name.split("/")[1]
                if group in category:
                    self.by_uid[category[group] * 1000 + file["uid"]] = name

    def attributes(self, name: str, profiles: list[str]) -> dict[str, Any]:
        """Attributes of an event or object with everything that it extends and includes."""
        file = self.files[name]
        found: dict[str, Any] = {}
        if parent := file.get("extends"):
            found = self.attributes(self.find(parent, name), profiles)
        own = dict(file["attributes"])
        for included in own.pop("$include", []):
            profile = self.files[included]
            for attribute, rule in profile["attributes"].items():
                if included.removeprefix("profiles/").removesuffix(".json") in profiles:
                    own.setdefault(attribute, rule)
        for attribute, rule in own.items():
            merged = {**found.get(attribute, {}), **rule}
            if "enum" in found.get(attribute, {}) and "enum" in rule:
                merged["enum"] = {**found[attribute]["enum"], **rule["enum"]}
            found[attribute] = merged
        return found

    def find(self, name: str, near: str) -> str:
        folder = "objects" if near.startswith("objects/") else "events"
        return next(f for f in self.files if f.startswith(f"{folder}/") and f.endswith(f"/{name}.json"))

    def constraints(self, name: str) -> dict[str, list[str]]:
        file = self.files[name]
        if "constraints" in file:
            return file["constraints"]
        return self.constraints(self.find(file["extends"], name)) if file.get("extends") else {}

    def problems(self, value: dict[str, Any], name: str, profiles: list[str], place: str) -> list[str]:
        """Everything that is wrong with a value."""
        rules = self.attributes(name, profiles)
        found = [
            f"{place}.{a} is required"
            for a, r in rules.items()
            if r.get("requirement") == "required" and a not in value and r.get("profile") in (None, *profiles)
        ]
        if (one_of := self.constraints(name).get("at_least_one")) and not set(one_of) & set(value):
            found.append(f"{place}: none of {one_of}")
        for attribute, member in value.items():
            if attribute not in rules:
                found.append(f"{place}.{attribute} is unknown")
                continue
            definition = {**self.dictionary[attribute], **rules[attribute]}
            if "@deprecated" in definition:
                found.append(f"{place}.{attribute} is deprecated")
            members = member if definition.get("is_array") else [member]
            if definition.get("is_array") and not isinstance(member, list):
                found.append(f"{place}.{attribute} is no array")
                continue
            for one in members:
                found += self.value_problems(one, definition, profiles, f"{place}.{attribute}")
        return found

    def value_problems(self, value: Any, definition: dict[str, Any], profiles: list[str], place: str) -> list[str]:
        kind, name = definition["type"], place.rsplit(".", 1)[1]
        if name in (
            "class_uid",
            "category_uid",
            "type_uid",
        ):  # Their enums are made from all files by OCSF's own compiler.
            return [] if isinstance(value, int) else [f"{place} is no integer"]
        if "enum" in definition and str(value) not in {**self.dictionary[name].get("enum", {}), **definition["enum"]}:
            return [f"{place} is {value!r}, which is not in its enum"]
        if f"objects/{kind}.json" in self.files and kind != "object":
            if not isinstance(value, dict):
                return [f"{place} is no object"]
            return self.problems(value, f"objects/{kind}.json", profiles, place)
        integers = ("integer_t", "long_t", "timestamp_t", "port_t")
        expected = int if kind in integers else dict if kind == "object" else str
        if (isinstance(value, expected) and not isinstance(value, bool)) or kind == "json_t":
            return self.type_problems(value, self.types.get(kind, {}), place)
        return [f"{place} is a {type(value).__name__}, expected {kind}"]

    def type_problems(self, value: Any, rules: dict[str, Any], place: str) -> list[str]:
        """Form, length and range, as the dictionary has them for each type."""
        if isinstance(value, str) and not re.match(rules.get("regex", ""), value):
            return [f"{place} is {value!r}, which has not the form of {rules['caption']}"]
        if isinstance(value, str) and len(value) > rules.get("max_len", len(value)):
            return [f"{place} is longer than {rules['max_len']}"]
        if "range" in rules and not rules["range"][0] <= value <= rules["range"][1]:
            return [f"{place} is {value}, not from {rules['range'][0]} to {rules['range'][1]}"]
        return []


@pytest.fixture(scope="session")
def schema(vectors: Path) -> Schema:
    return Schema(vectors / "ocsf" / "schema.json")


@control("AU-2")
def test_there_is_a_builder_for_every_kind() -> None:
    """The table of kinds and the builders cover each other."""
    made = make_events()
    assert set(made) == set(KINDS)
    assert {name: kind_of(event) for name, event in made.items()} == {name: name for name in KINDS}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_events_are_valid_ocsf(schema: Schema, kind: str) -> None:
    """With what the auditor adds, every event obeys the schema and is canonical."""
    event = parse_canonical(encode_event(make_events()[kind]))
    data = complete_entry(
        event, index=1, time_ms=1_795_411_388_337, reporter="gateway/0", log_name="o", random=bytes(16)
    )
    entry = parse_canonical(data)
    profiles = entry["metadata"].get("profiles", [])
    assert schema.problems(entry, schema.by_uid[entry["class_uid"]], profiles, kind) == []


@control("3.4.3", "AC-2(4)", "AC-6(9)", "AU-3(1)", "CM-3")
def test_a_change_says_before_and_after() -> None:
    """In OCSF's own places."""
    event = make_events()["key_rotated"]
    assert (event["entity"]["data"], event["updated_entity"]["data"]) == ({"tokens": 5}, {"tokens": 7})


def test_the_schema_test_can_fail(schema: Schema) -> None:
    """A missing actor, a wrong enum, an unknown member, a wrong type: each is found."""
    event = make_intent() | {"time": 1, "severity_id": 77, "nonsense": 1, "message": 5}
    del event["actor"]
    event["src_endpoint"] = {"port": 1}
    event["dst_endpoint"] = {"ip": "nowhere", "port": 70_000}
    found = schema.problems(event, schema.by_uid[6003], event["metadata"]["profiles"], "e")
    for word in (
        "actor is required",
        "severity_id is 77",
        "nonsense is unknown",
        "message is a int",
        "src_endpoint: none of",
        "ip is 'nowhere', which has not the form of",
        "port is 70000, not from 0 to 65535",
    ):
        assert any(word in problem for problem in found), (word, found)


@control("3.3.9", "AU-2", "AU-9(4)", "AU-12")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_only_the_roles_of_the_table_may_append(kind: str) -> None:
    """Each kind comes from its roles by its message, and from nobody else."""
    event = make_events()[kind]
    for role in ("gateway", "authority", "engine", "policy", "supervisor", AUDITOR, READER, "stranger"):
        for message in ("intent", "outcome", "event"):
            if role in KINDS[kind].roles and message == KINDS[kind].message:
                assert verify_permitted(role, message, event).name == kind
            else:
                with pytest.raises(NotPermitted):
                    verify_permitted(role, message, event)


@pytest.mark.parametrize("name", ["class_uid", "category_uid", "type_uid", "activity_id"])
def test_an_event_cannot_pass_as_another_class(name: str) -> None:
    """Kind, class, category, type and activity agree."""
    event = make_intent() | {name: 1008}
    if name == "activity_id":
        event["type_uid"] = 600300 + 1008
    with pytest.raises(MalformedEntry, match=name):
        verify_permitted("gateway", "intent", event)


@pytest.mark.parametrize("activity_id", [[], {}, "1"])
def test_an_activity_of_another_type_is_malformed(activity_id: object) -> None:
    """It is refused like a wrong number."""
    with pytest.raises(MalformedEntry, match="activity_id"):
        verify_permitted("gateway", "intent", make_intent() | {"activity_id": activity_id, "type_uid": 600300})


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "x"},
        {"actor": {"app_uid": 5}},
        {"metadata": "x"},
        {"unmapped": {"casemate": {"kind": "inference_intent", "request_uid": 5}}},
        {"unmapped": {"casemate": {"kind": "inference_intent", "intent_index": "x"}}},
        {"unmapped": {"casemate": {"kind": "inference_intent", "scan_from": "x"}}},
    ],
)
def test_what_a_start_could_not_read_back_is_not_permitted(change: dict[str, Any]) -> None:
    """What is refused here is what the summary of the record would fail on."""
    event = make_intent() | change
    with pytest.raises(MalformedEntry):
        summarize(encode_event(event))
    with pytest.raises(MalformedEntry):
        verify_permitted("gateway", "intent", event)


@pytest.mark.parametrize(
    "change",
    [
        {"status_id": {}},
        {"severity_id": []},
        {"status_code": {}},
        {"ai_model": {"name": 5}},
        {"src_endpoint": {"ip": []}},
        {"trace": 5},
        {"user": {"name": {}}},
        {"message_context": {"prompt_tokens": "7"}},
        {"metadata": {"tenant_uid": 5}},
        {"metadata": {"product": 5}},
        {"actor": {"user": {"name": 5}}},
    ],
)
def test_what_nobody_could_find_or_read_is_not_permitted(change: dict[str, Any]) -> None:
    """A captured process appends no record that searches by actor or client pass over, and that stops an export."""
    with pytest.raises(MalformedEntry):
        verify_permitted("gateway", "intent", make_intent() | change)


@pytest.mark.parametrize(
    "change", [{"ai_model": "x"}, {"ai_model": {"name": 5}}, {"message_context": []}, {"severity_id": "9"}]
)
def test_an_outcome_that_counts_cannot_be_joined_to_is_malformed(change: dict[str, Any]) -> None:
    """Its types are checked before the engine's counts are put beside its own."""
    closing.verify_outcome(make_outcome())
    with pytest.raises(MalformedEntry, match=next(iter(change))):
        closing.verify_outcome(make_outcome() | change)


def test_one_record_of_several_says_so_in_ocsfs_words() -> None:
    """A count with its window; of a single one OCSF has none of them."""
    several = make_events()["token_rejected"]
    told = {name: several.get(name) for name in ("count", "duration", "end_time", "start_time")}
    assert told == {"count": 3, "duration": 4_000, "end_time": 1_760_000_004_000, "start_time": 1_760_000_000_000}
    assert several["unmapped"]["casemate"]["num_times"] == 3
    one = events.token_rejected_event(
        address="10.0.0.1", port=1, route="/", code="c", detail="d", first_ms=5, last_ms=5
    )
    assert one["unmapped"]["casemate"]["num_times"] == 1
    assert one.keys().isdisjoint(told)


@control("AU-3", "3.3.2")
def test_who_starts_the_appliance_and_its_processes_is_their_actor() -> None:
    """A person for the one, by what the system calls them; for the others the supervisor."""
    told = {"digest": "sha256:00", "previous_digest": "", "mode": "development", "lacks": ()}
    started = changes.configuration_loaded_event(actor="os:ada", **told)  # type: ignore[arg-type]
    assert started["actor"]["user"] == {"name": "os:ada", "type_id": 1}
    for kind in ("process_started", "process_stopped", "process_crashed", "process_restarted"):
        event = events.process_event(kind, role="engine", instance=0, pid=7)
        assert event["actor"]["user"] == {"name": "supervisor", "type_id": 3}


def test_a_sign_out_has_no_empty_detail() -> None:
    """There is nothing to say of it."""
    words = {"login": "ada", "user_id": "user-1", "client_id": "", "address": "10.0.0.1", "port": 1}
    assert "status_detail" not in events.sign_in_event("user_signed_out", detail="", **words)  # type: ignore[arg-type]
    assert events.sign_in_event("user_signed_in", detail="by password", **words)["status_detail"] == "by password"  # type: ignore[arg-type]


def test_an_unknown_kind_and_none_are_refused() -> None:
    """The table is closed."""
    event = make_intent()
    event["unmapped"]["casemate"]["kind"] = "inference_nothing"
    with pytest.raises(NotPermitted, match="inference_nothing"):
        verify_permitted("gateway", "intent", event)
    for broken in ({}, {"unmapped": 1}, {"unmapped": {"casemate": []}}, {"unmapped": {"casemate": {"kind": 1}}}):
        with pytest.raises(MalformedEntry):
            kind_of(broken)


@control("3.3.1", "3.3.2", "AU-3", "AU-3(1)", "A.6.2.8", "Article 12(2)")
def test_an_intent_holds_what_an_auditor_asks_for() -> None:
    """Who, by which token, from where, which model and build, parameters, keyed hash, decision, reservation."""
    text = encode_event(make_intent()).decode()
    for value in (
        "demo",
        "alice",
        "t1",
        "https://issuer",
        "k1",
        "jti-1",
        "2001:db8::1",
        "4711",
        "b1",
        "0.7",
        "req-1",
        CALL.trace_id,
    ):
        assert f"{value}" in text


def test_counts_are_compared() -> None:
    """The engine's counts stand beside the gateway's, and a difference is told."""
    outcome = make_outcome()
    closing.add_engine_counts(outcome, closing.engine_counts(COUNTS, "stop"))
    assert outcome["unmapped"]["casemate"]["counts"] == "agree"
    other = make_outcome(None)
    lied = events.TokenCounts(prompt_tokens=12, cached_tokens=4, output_tokens=700)
    closing.add_engine_counts(other, closing.engine_counts(lied, "stop"))
    assert other["unmapped"]["casemate"]["counts"] == "differ"
    assert other["unmapped"]["casemate"]["engine"]["output_tokens"] == 700
    assert other["severity_id"] == events.MEDIUM
    cut = make_outcome()
    kept = events.TokenCounts(prompt_tokens=12, cached_tokens=4, output_tokens=0)
    closing.add_engine_counts(cut, closing.engine_counts(kept, "stop", delivered_tokens=49))
    assert cut["unmapped"]["casemate"]["counts"] == "cut"
    assert cut["unmapped"]["casemate"]["engine"]["delivered_tokens"] == 49
    missing = make_outcome()
    closing.add_engine_counts(missing, None)
    assert missing["unmapped"]["casemate"]["counts"] == "unreported"


def test_a_closing_event_names_the_caller_of_its_intent() -> None:
    """It stands on its own: actor, model and source are the intent's."""
    intent = make_intent()
    event = closing.closing_event(intent, 3, "recovered", "d", closing.engine_counts(COUNTS, "stop"))
    assert event["actor"] == intent["actor"]
    assert event["message_context"]["completion_tokens"] == 7
    assert event["unmapped"]["casemate"]["counts"] == "engine_only"
    assert "message_context" not in closing.closing_event(intent, 3, "recovered", "d", None)
