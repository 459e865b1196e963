"""`POST /v1/tokenize` and `/v1/detokenize`, with vLLM's and SGLang's members: what a prompt costs, and what tokens say."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from appliance.gateway.api.chat_request import parse_chat_request
from appliance.gateway.api.completion_request import parse_prompts
from appliance.gateway.api.fields import Name
from appliance.gateway.api.intake import Intake
from appliance.gateway.api.parameters import parse_parameters
from appliance.gateway.api.validation import verify_ids
from appliance.gateway.body import parse_object
from appliance.gateway.errors import BadRequest
from appliance.gateway.exchange import Exchange
from appliance.gateway.models import ServedModel
from appliance.gateway.text.detokenizer import detokenize


class TokenizeFields(Struct, kw_only=True):
    """A prompt as text, or several; with `messages` the body is a chat request."""

    model: Name | None = None
    """May be absent where one is served only, as at `/generate`."""
    prompt: str | Annotated[list[str], Meta(min_length=1)]
    add_special_tokens: bool = True
    return_token_strs: bool = False


class DetokenizeFields(Struct, kw_only=True):
    """Token ids of one text, or of several."""

    model: Name | None = None
    """May be absent where one is served only, as at `/generate`."""
    tokens: list[Any]
    """Checked by `parse_prompts`, which names what is wrong."""
    skip_special_tokens: bool = True


class TokenEndpoints:
    """Both; they ask no model, so they are neither recorded nor paid for, but counted (`Intake.look_up`)."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def tokenize(self, exchange: Exchange) -> None:
        """Text or messages to ids."""
        body = parse_object(await exchange.read_body())
        shows_strings = body.get("return_token_strs") is True
        if "messages" in body:
            model, ids = await self._tokenize_chat(exchange, body)
            answer: dict[str, Any] = {"count": len(ids), "tokens": ids}
            texts = [ids]
        else:
            fields = parse_parameters(body, TokenizeFields)
            model = await self._intake.look_up(exchange.identified, fields.model)
            texts = await self._tokenize_texts(model, fields)
            is_list = isinstance(fields.prompt, list)
            answer = {
                "count": [len(ids) for ids in texts] if is_list else len(texts[0]),
                "tokens": texts if is_list else texts[0],
            }
        vocabulary = model.tokenizer.vocabulary
        answer["max_model_len"] = self._intake.facts_of(model).context_length
        answer["token_strs"] = (
            [vocabulary.text_of(token_id) for ids in texts for token_id in ids] if shows_strings else None
        )
        await exchange.respond(200, answer)

    async def _tokenize_chat(self, exchange: Exchange, body: dict[str, Any]) -> tuple[ServedModel, list[int]]:
        own = ("return_token_strs", "add_special_tokens")
        if body.get("add_special_tokens"):
            message = (
                "add_special_tokens: a chat template puts them where they belong, so only false goes with messages"
            )
            raise BadRequest("unsupported_parameter", message, parameter="add_special_tokens")
        chat = {name: value for name, value in body.items() if name not in own}
        if chat.get("model") is None:
            chat["model"] = self._intake.find_model(None).name
        request = parse_chat_request(chat, self._intake.settings)
        model = await self._intake.look_up(exchange.identified, request.fields.model)
        return model, await self._intake.tokenize_chat(model, request)

    async def _tokenize_texts(self, model: ServedModel, fields: TokenizeFields) -> list[list[int]]:
        """Nothing has no tokens, where none are put around it."""
        name = "prompt[{}]" if isinstance(fields.prompt, list) else "prompt"
        plain = not fields.add_special_tokens
        texts = [fields.prompt] if isinstance(fields.prompt, str) else fields.prompt
        some = [text for text in parse_prompts(texts, self._intake.settings.max_prompts) if text or not plain]
        tokenized = iter(await self._intake.tokenize_prompts(model, some, name.format, plain=plain))
        return [next(tokenized) if text or not plain else [] for text in texts]

    async def detokenize(self, exchange: Exchange) -> None:
        """Ids to text; control tokens have none. The text has vLLM's name and SGLang's."""
        fields = parse_parameters(parse_object(await exchange.read_body()), DetokenizeFields)
        if not fields.skip_special_tokens:
            message = "skip_special_tokens: control tokens have no text here, so only true is taken"
            raise BadRequest("unsupported_parameter", message, parameter="skip_special_tokens")
        model = await self._intake.look_up(exchange.identified, fields.model)
        facts, vocabulary = self._intake.facts_of(model), model.tokenizer.vocabulary
        texts: list[str] = []
        for ids in parse_prompts(fields.tokens, self._intake.settings.max_prompts, "tokens") if fields.tokens else [[]]:
            if isinstance(ids, str):
                raise BadRequest("invalid_parameter", "tokens: expected token ids, got text", parameter="tokens")
            verify_ids(ids, facts, "tokens")
            texts.append(detokenize(vocabulary, ids))
        text = texts if fields.tokens and isinstance(fields.tokens[0], list) else texts[0]
        await exchange.respond(200, {"prompt": text, "text": text})
