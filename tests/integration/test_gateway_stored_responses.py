"""What was kept of `/v1/responses`, with OpenAI's SDK: its input items in pages, counted prompts, and what is refused by name."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import InputTokenCountResponse, ResponseItem
from pydantic import TypeAdapter

from tests.support.controls import control
from tests.support.gateway import TOKEN, Gateway, principal, running_gateway
from tests.support.model_folders import MODEL
from tests.support.wire import exchange

CONVERSATION: Any = [
    {"role": "developer", "content": "be brief"},
    {"role": "user", "content": [{"type": "input_text", "text": "add"}, {"type": "input_text", "text": "one"}]},
    {"type": "reasoning", "id": "rs_mine", "summary": []},
    {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'},
    {"type": "function_call_output", "call_id": "c1", "output": "two"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "", "id": "rs_mine", "status": None},
]
"""Every kind of item, as short as a client may write it, and one id twice."""
BARE = (f"Authorization: Bearer {TOKEN}",)


@pytest.fixture
async def gateway(folder: Path, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(folder, store_path=tmp_path / "responses.sqlite", response_retention_s=60) as running:
        yield running


async def items_of(client: openai.AsyncOpenAI, response_id: str, **query: Any) -> list[Any]:
    """All pages together, as the SDK goes through them."""
    return [item async for item in client.responses.input_items.list(response_id, **query)]


async def test_input_items_are_as_the_sdk_declares_them(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """To the letter, in their order or the other way round, each with an id of its own, and nothing of the answer among them."""
    response = await client.responses.create(model=MODEL, input=CONVERSATION)
    listed = await items_of(client, response.id, order="asc", include=["reasoning.encrypted_content"])
    declared: TypeAdapter[Any] = TypeAdapter(ResponseItem)
    for item in listed:
        declared.validate_python(item.to_dict(), strict=True)
    assert [item.type for item in listed] == [item.get("type", "message") for item in CONVERSATION]
    assert [item.status for item in listed] == ["completed"] * len(CONVERSATION)
    assert [part.text for part in listed[1].content] == ["add", "one"]
    assert [type(listed[at].content[0]).__name__ for at in (1, 5)] == ["ResponseInputText", "ResponseOutputText"]
    ids = [item.id for item in listed]
    assert len({*ids, *(item.id for item in response.output)}) == len(CONVERSATION) + 1
    assert ids[2] == "rs_mine"
    assert [item.id for item in await items_of(client, response.id)] == ids[::-1]


async def test_an_item_is_named_instead_of_said_again(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Whatever it is, of the input or of the answer, with its type or without: the prompt is the same to the token."""
    gateway.says("first")
    first = await client.responses.create(model=MODEL, input=CONVERSATION)
    said = await items_of(client, first.id, order="asc")
    later: Any = {"role": "user", "content": "later"}
    await client.responses.create(model=MODEL, input=[later], previous_response_id=first.id)
    prompt = gateway.engine.submits[-1].prompt
    ids = [item.id for item in said if item.id != "rs_mine"] + [first.output[0].id]
    for kind in ({"type": "item_reference"}, {"type": None}, {}):
        named: Any = [{"id": item_id} | kind for item_id in ids]
        second = await client.responses.create(model=MODEL, input=[*named, later])
        assert gateway.engine.submits[-1].prompt == prompt
        assert [item.id for item in await items_of(client, second.id, order="asc")][: len(ids)] == ids
    counted = await client.responses.input_tokens.count(model=MODEL, input=[*named, later])
    assert counted.input_tokens == len(prompt) // 4


async def test_what_is_named_must_be_the_tenants_own_and_kept(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """404 for all else, by the item's place: another tenant's, one of a response that is forgotten, an id of nobody's."""
    response = await client.responses.create(model=MODEL, input="hello")
    named: Any = [{"role": "user", "content": "x"}, {"type": "item_reference", "id": response.output[0].id}]
    gateway.tokens.good["other-tenant"] = principal("client-9", tenant="globex")
    await client.with_options(api_key="other-client").responses.create(model=MODEL, input=named)

    async def verify_missing(asker: openai.AsyncOpenAI, items: Any) -> None:
        with pytest.raises(openai.NotFoundError, match=r"Item with id .* not found") as missing:
            await asker.responses.create(model=MODEL, input=items)
        assert (missing.value.code, missing.value.param) == ("item_not_found", "input[1]")

    await verify_missing(client.with_options(api_key="other-tenant"), named)
    for unknown in (f"msg_{'0' * 32}0000", f"{response.output[0].id}0", "msg_mine", "'; --"):
        await verify_missing(client, [named[0], {"id": unknown}])
    await client.responses.delete(response.id)
    await verify_missing(client, named)


async def test_references_are_bounded(
    gateway: Gateway, client: openai.AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small request cannot become a large one by naming a large item often, or make many large records be read."""
    monkeypatch.setattr("appliance.gateway.api.response_conversation.MAX_REFERENCED_BYTES", 4096)
    small = await client.responses.create(model=MODEL, input="x" * 50)
    often: Any = [{"id": small.output[0].id}] * 40
    large = await client.responses.create(model=MODEL, input="x" * 400)
    many: Any = [{"id": large.output[0].id}, {"id": small.output[0].id}]
    assert (await client.responses.create(model=MODEL, input=[*often[:2], *many])).status == "completed"
    with pytest.raises(openai.BadRequestError, match="lead to more than") as refused:
        await client.responses.create(model=MODEL, input=often)
    assert str(refused.value.param).startswith("input[")
    monkeypatch.setattr("appliance.gateway.api.response_conversation.MAX_REFERENCED_BYTES", 1024)
    with pytest.raises(openai.BadRequestError, match="lead to more than"):
        await client.responses.create(model=MODEL, input=many)


async def test_input_items_come_in_pages(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """However small they are, all items come once; a page says whether more follow."""
    response = await client.responses.create(model=MODEL, input=CONVERSATION)
    whole = [item.id for item in await items_of(client, response.id)]
    for limit in (1, 2, 7):
        assert [item.id for item in await items_of(client, response.id, limit=limit)] == whole
    page = await client.responses.input_items.list(response.id, limit=3, after=whole[1])
    assert [item.id for item in page.data] == whole[2:5]
    assert page.to_dict() | {"data": []} == {
        "object": "list",
        "data": [],
        "first_id": whole[2],
        "last_id": whole[4],
        "has_more": True,
    }
    last = await client.responses.input_items.list(response.id, after=whole[-1])
    assert (last.data, last.has_more) == ([], False)


async def test_items_keep_their_ids_in_what_goes_on_from_them(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """The answer of before is an input item now; and items that were listed may be sent back, and mean the same."""
    gateway.says("first")
    first = await client.responses.create(model=MODEL, input="hello")
    second = await client.responses.create(model=MODEL, input="again", previous_response_id=first.id)
    earlier, later = await items_of(client, first.id, order="asc"), await items_of(client, second.id, order="asc")
    assert [item.id for item in later[:2]] == [earlier[0].id, first.output[0].id]
    prompt = gateway.engine.submits[-1].prompt
    sent_back: Any = [item.to_dict() for item in later]
    await client.responses.create(model=MODEL, input=sent_back)
    assert gateway.engine.submits[-1].prompt == prompt


async def test_input_items_are_the_tenants_own(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """To another tenant, and once it is forgotten, there is no such response; neither to list, nor to cancel, nor to count on."""
    response = await client.responses.create(model=MODEL, input="hello")
    gateway.tokens.good["other-tenant"] = principal("client-9", tenant="globex")
    stranger = client.with_options(api_key="other-tenant")
    await items_of(client.with_options(api_key="other-client"), response.id)
    for asker in (stranger, client):
        with pytest.raises(openai.NotFoundError) as missing:
            await items_of(asker, response.id)
        assert missing.value.code == "response_not_found"
        with pytest.raises(openai.NotFoundError):
            await asker.responses.cancel(response.id)
        with pytest.raises(openai.BadRequestError) as refused:
            await asker.responses.input_tokens.count(model=MODEL, previous_response_id=response.id)
        assert refused.value.code == "previous_response_not_found"
        await client.responses.delete(response.id) if asker is stranger else None


@control("AU-12", "3.3.1")
async def test_who_has_a_response_deleted_is_recorded_first(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Once, and not for a tenant that has no such response; what cannot be recorded stays."""
    response = await client.responses.create(model=MODEL, input="hello")
    gateway.tokens.good["other-tenant"] = principal("client-9", tenant="globex")
    with pytest.raises(openai.NotFoundError):
        await client.with_options(api_key="other-tenant").responses.delete(response.id)
    assert gateway.auditor.of_kind("response_deleted") == []
    gateway.auditor.can_append = False
    with pytest.raises(openai.InternalServerError):
        await client.with_options(max_retries=0).responses.delete(response.id)
    gateway.auditor.can_append = True
    assert (await client.responses.retrieve(response.id)).id == response.id
    await client.with_options(api_key="other-client").responses.delete(response.id)
    (deleted,) = gateway.auditor.of_kind("response_deleted")
    assert deleted["unmapped"]["casemate"]["response_id"] == response.id
    assert deleted["actor"]["app_uid"] == gateway.tokens.good["other-client"].client_id
    assert deleted["src_endpoint"]["port"] > 0


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_what_is_over_is_not_cancelled(
    gateway: Gateway, client: openai.AsyncOpenAI, *, is_streamed: bool
) -> None:
    """In OpenAI's words; and the response stays."""
    if is_streamed:
        events = [event async for event in await client.responses.create(model=MODEL, input="x", stream=True)]
        assert events[-1].type == "response.completed"
        response_id = events[-1].response.id
    else:
        response_id = (await client.responses.create(model=MODEL, input="x")).id
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        await client.responses.cancel(response_id)
    assert (await client.responses.retrieve(response_id)).status == "completed"


async def test_a_prompt_is_counted_as_it_would_be(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """To the token, with tools, instructions and what it goes on from; no model is asked, and nothing recorded."""
    tool: Any = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}
    first = await client.responses.create(model=MODEL, input="hello")
    asked: Any = {"instructions": "be brief", "input": CONVERSATION, "tools": [tool], "previous_response_id": first.id}
    num_submits = len(gateway.engine.submits)
    counted = await client.responses.input_tokens.count(model=MODEL, **asked)
    TypeAdapter(InputTokenCountResponse).validate_python(counted.to_dict(), strict=True)
    assert len(gateway.engine.submits) == num_submits
    assert (await client.responses.input_tokens.count(**asked)).input_tokens == counted.input_tokens, "the only model"
    response = await client.responses.create(model=MODEL, **asked)
    assert response.usage is not None
    assert response.usage.input_tokens == counted.input_tokens


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": "x", "conversation": "conv_1"}, "conversation"),
        ({"input": "x", "personality": "friendly"}, "personality"),
        ({"input": "x", "truncation": "auto"}, "truncation"),
        ({"input": "x", "temperature": 1}, "temperature"),
        ({"input": "x", "model": "nobody"}, "model"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ],
)
async def test_what_cannot_be_counted_is_refused_by_name(
    gateway: Gateway, client: openai.AsyncOpenAI, body: dict[str, Any], param: str
) -> None:
    """Nothing is passed over, what only an answer depends on included."""
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
        await client.post("/responses/input_tokens", body=body, cast_to=object)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        ("", "stream=true", "stream"),
        ("", "stream=true&starting_after=3", "stream"),
        ("", "stream=maybe", "stream"),
        ("", "starting_after=3", "starting_after"),
        ("", "stream=true&starting_after=-1", "starting_after"),
        ("", "include_obfuscation=maybe", "include_obfuscation"),
        ("", "include_obfuscation=true", "include_obfuscation"),
        ("", "include[]=file_search_call.results", "include[0]"),
        ("", "junk", "junk"),
        ("", "a=%ff", None),
        ("/input_items", "limit=0", "limit"),
        ("/input_items", "limit=101", "limit"),
        ("/input_items", "limit=ten", "limit"),
        ("/input_items", "limit=1&limit=2", "limit"),
        ("/input_items", "order=up", "order"),
        ("/input_items", "after=", "after"),
        ("/input_items", "after=msg_nothing", "after"),
        ("/input_items", "before=msg_1", "before"),
        ("/input_items", "include[]=message.output_text.logprobs", "include[0]"),
        ("/input_items", "&".join(["include=reasoning.encrypted_content"] * 40), None),
    ],
)
async def test_a_query_is_as_strict_as_a_body(
    gateway: Gateway, client: openai.AsyncOpenAI, path: str, query: str, param: str | None
) -> None:
    """Refused with 400 by the parameter's name."""
    response = await client.responses.create(model=MODEL, input="x")
    with pytest.raises(openai.BadRequestError) as refused:
        await client.get(f"/responses/{response.id}{path}?{query}", cast_to=object)
    assert refused.value.param == param
    taken = "stream=false&include=reasoning.encrypted_content&include_obfuscation=false"
    answer = await exchange(gateway.port, "GET", f"/v1/responses/{response.id}?{taken}", headers=BARE)
    assert answer.status == 200


async def test_others_of_the_sdk_are_no_routes(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """What an appliance has not answers with OpenAI's error body, so that the SDK raises what a program expects."""
    absent = (
        client.conversations.create(),
        client.files.list(),
        client.batches.list(),
        client.moderations.create(input="x"),
        client.chat.completions.retrieve("chatcmpl-1"),
    )
    for call in absent:
        with pytest.raises(openai.NotFoundError) as missing:
            await call
        assert missing.value.code == "unknown_route"
