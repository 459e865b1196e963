"""The models that this gateway serves: tokenizer, template and defaults of each, loaded once at start."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from appliance.gateway.errors import NotFound
from appliance.gateway.text.template import ChatTemplate
from appliance.gateway.text.tokenizer import Tokenizer
from appliance.gateway.tools.forms import Forms
from runtime.weights.config import GenerationDefaults


@dataclass(frozen=True)
class ServedModel:
    """What the gateway itself knows of a model; its limits come from the engine."""

    name: str
    created: int
    """When this gateway began to serve it; seconds since the epoch, as `/v1/models` says."""
    tokenizer: Tokenizer
    template: ChatTemplate
    defaults: GenerationDefaults
    forms: Forms
    """How it writes tool calls and reasoning."""
    embedding_size: int
    """Numbers of a hidden state."""


class Models:
    """The served models by name."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._by_name = {model.name: model for model in models}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._by_name.values())

    def find(self, name: str, parameter: str | None = "model") -> ServedModel:
        """A model by its name. Raises: NotFound."""
        model = self._by_name.get(name)
        if model is None:
            fault = NotFound(
                "model_not_found", f"the model {name[:128]!r} does not exist here; there is: {', '.join(self._by_name)}"
            )
            fault.parameter = parameter
            raise fault
        return model

    @property
    def only(self) -> ServedModel | None:
        """The one model, if there is one: native requests need not name it."""
        return next(iter(self._by_name.values())) if len(self._by_name) == 1 else None
