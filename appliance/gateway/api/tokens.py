"""`POST /v1/tokenize` and `/v1/detokenize`, with vLLM's members: what a prompt costs, and what tokens say."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from appliance.gateway.api.chat_request import parse_chat_request
from appliance.gateway.api.fields import Name, Tokens
from appliance.gateway.api.intake import Intake
from appliance.gateway.api.parameters import parse_parameters
from appliance.gateway.api.validation import verify_ids
from appliance.gateway.body import parse_object
from appliance.gateway.exchange import Exchange
from appliance.gateway.text.detokenizer import detokenize


class TokenizeFields(Struct, kw_only=True):
    """A prompt as text; with `messages` the body is a chat request."""

    model: Name
    prompt: Annotated[str, Meta(min_length=1)]
    add_special_tokens: bool = True
    return_token_strs: bool = False


class DetokenizeFields(Struct, kw_only=True):
    """Token ids."""

    model: Name
    tokens: Tokens


class TokenEndpoints:
    """Both; they ask no model, so they are neither recorded nor paid for."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def tokenize(self, exchange: Exchange) -> None:
        """Text or messages to ids."""
        body = parse_object(await exchange.read_body())
        shows_strings = body.get("return_token_strs") is True
        if "messages" in body:
            chat = {name: value for name, value in body.items() if name != "return_token_strs"}
            request = parse_chat_request(chat, self._intake.settings)
            model = self._intake.find_model(request.fields.model)
            ids = await self._intake.tokenize_chat(model, request)
        else:
            fields = parse_parameters(body, TokenizeFields)
            model = self._intake.find_model(fields.model)
            if fields.add_special_tokens:
                (ids,) = await self._intake.tokenize_prompts(model, [fields.prompt], lambda _: "prompt")
            else:
                (ids,) = await self._intake.tokenize_prompts(model, [fields.prompt], lambda _: "prompt", plain=True)
        vocabulary = model.tokenizer.vocabulary
        answer: dict[str, Any] = {
            "count": len(ids),
            "max_model_len": self._intake.facts_of(model).context_length,
            "tokens": ids,
            "token_strs": [vocabulary.text_of(token_id) for token_id in ids] if shows_strings else None,
        }
        await exchange.respond(200, answer)

    async def detokenize(self, exchange: Exchange) -> None:
        """Ids to text; control tokens have none."""
        fields = parse_parameters(parse_object(await exchange.read_body()), DetokenizeFields)
        model = self._intake.find_model(fields.model)
        verify_ids(fields.tokens, self._intake.facts_of(model), "tokens")
        await exchange.respond(200, {"prompt": detokenize(model.tokenizer.vocabulary, fields.tokens)})
