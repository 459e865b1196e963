"""`POST /v1/responses/input_tokens`: how many tokens a response's prompt would have. No model is asked, so it is not recorded."""

from appliance.gateway.api.chat_request import parse_chat_request
from appliance.gateway.api.intake import Intake
from appliance.gateway.api.naming import named_as
from appliance.gateway.api.response_conversation import load_conversation
from appliance.gateway.api.response_store import ResponseStore
from appliance.gateway.api.responses_request import CHAT_NAMES, chat_body, parse_conversation, tool_places
from appliance.gateway.body import parse_object
from appliance.gateway.exchange import Exchange

INPUT_TOKENS_ROUTE = "/v1/responses/input_tokens"


class InputTokensEndpoint:
    """Counts the tokens of a prompt, what is gone on from included."""

    def __init__(self, intake: Intake, store: ResponseStore) -> None:
        self._intake = intake
        self._store = store

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        fields = parse_conversation(parse_object(await exchange.read_body()))
        model = await self._intake.look_up(exchange.identified, fields.model)
        items = await load_conversation(self._store, exchange.identified.tenant, fields)
        with named_as(CHAT_NAMES, tool_places(fields), "parameters"):
            request = parse_chat_request(chat_body(fields, items) | {"model": model.name}, self._intake.settings)
            prompt = await self._intake.tokenize_chat(model, request)
        await exchange.respond(200, {"object": "response.input_tokens", "input_tokens": len(prompt)})
