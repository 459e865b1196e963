"""`POST /v1/embeddings`: the last hidden state of a served model at each input's last token, brought to length 1.

The model computes the input as a prompt, shares its prefixes and chooses one token, which is thrown away but counted: so an
embedding is admitted, recorded and paid for as everything else is. Models that were not trained for it embed as well as they do.
"""

import array
import base64
import sys
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from appliance.gateway.api.completion_request import parse_prompts
from appliance.gateway.api.dialects import OPENAI
from appliance.gateway.api.endpoint import Inference
from appliance.gateway.api.fields import Name, SamplingFields
from appliance.gateway.api.intake import Intake, Limit, Wanted, new_uid
from appliance.gateway.api.parameters import parse_parameters
from appliance.gateway.errors import BadRequest, EngineFault
from appliance.gateway.flow.choice import Piece
from appliance.gateway.flow.generation import Generation
from appliance.gateway.flow.request import Asked
from appliance.gateway.identity import Principal

ROUTE = "/v1/embeddings"


class EmbeddingsFields(Struct, kw_only=True):
    """The body's members."""

    model: Name
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: Annotated[str, Meta(max_length=256)] = ""


class EmbeddingsApi:
    """Embeds texts."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def prepare(self, body: dict[str, Any], principal: Principal) -> Inference:
        """Check a body. Raises: GatewayFault."""
        fields = parse_parameters(body, EmbeddingsFields)
        model = self._intake.find_model(fields.model)
        if fields.dimensions not in (None, model.embedding_size):
            message = f"dimensions: an embedding has the model's own size, {model.embedding_size}"
            raise BadRequest("unsupported_parameter", message, parameter="dimensions")
        inputs = parse_prompts(fields.input, self._intake.settings.max_prompts, "input")
        name = "input" if len(inputs) == 1 else "input[{}]"
        prompts = await self._intake.tokenize_prompts(model, inputs, name.format)
        wanted = Wanted(
            uid=new_uid("embd"),
            route=ROUTE,
            sampling=SamplingFields(temperature=0),
            limit=Limit(1, "input"),
            gives_text=False,
            user=fields.user,
            wants_embedding=True,
        )
        asked = await self._intake.ask(principal, model, prompts, wanted)
        is_encoded = fields.encoding_format == "base64"
        return Inference(
            asked, model.tokenizer.vocabulary, False, lambda _answer, _at: _EmbeddingWords(asked, is_encoded)
        )


class _EmbeddingWords:
    """Words a list of embeddings; there is no stream of them."""

    dialect = OPENAI
    reading = None

    def __init__(self, asked: Asked, is_encoded: bool) -> None:
        self._asked = asked
        self._is_encoded = is_encoded

    def begin(self, generations: list[Generation]) -> Iterable[object]:
        """Nothing."""
        return ()

    def piece(self, piece: Piece) -> Iterable[object]:
        """Nothing."""
        return ()

    def finish(self, generations: list[Generation]) -> Iterable[object]:
        """Nothing."""
        return ()

    def whole(self, pieces: list[Piece], generations: list[Generation]) -> dict[str, Any]:
        """In the order of the inputs."""
        num_tokens = sum(generation.num_prompt_tokens for generation in generations)
        return {
            "object": "list",
            "model": self._asked.model,
            "data": [self._shown(generation) for generation in generations],
            "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
        }

    def _shown(self, generation: Generation) -> dict[str, Any]:
        delivered = generation.prompt_delivery
        if delivered is None or not delivered.embedding:
            raise EngineFault("no_embedding", "the engine gave no embedding")
        encoded = delivered.embedding
        embedding: Any = base64.b64encode(encoded).decode() if self._is_encoded else _floats(encoded)
        return {"object": "embedding", "index": generation.index, "embedding": embedding}


def _floats(encoded: bytes) -> list[float]:
    values = array.array("f", encoded)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()
