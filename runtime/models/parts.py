"""The layers of a model, put together from its parameters."""

from collections.abc import Mapping

from torch import Tensor

from runtime.layers.linear import Linear
from runtime.layers.quantized import AnyLinear, InputScaling, QuantizedLinear
from runtime.weights.config import ModelConfig
from runtime.weights.layout import input_scale_of, scales_of
from runtime.weights.shares import Share, cuts_head


def build_linear(config: ModelConfig, parameters: Mapping[str, Tensor], name: str) -> AnyLinear:
    """The linear layer of that name, quantized if there are scales for its weights."""
    weight, bias = parameters[f"{name}.weight"], parameters.get(f"{name}.bias")
    scales = parameters.get(scales_of(f"{name}.weight"))
    if scales is None:
        return Linear(weight, bias)
    inputs = InputScaling(
        by_group=scales.ndim == 2,
        bound=None if config.quantization is None else config.quantization.input_bound,
        static=parameters.get(input_scale_of(f"{name}.weight")),
    )
    return QuantizedLinear(weight, scales, bias, inputs)


def build_head(config: ModelConfig, parameters: Mapping[str, Tensor], share: Share) -> AnyLinear:
    """The layer that makes logits: of all token ids, or of a rank's part of them (`cuts_head`)."""
    if not config.tie_word_embeddings:
        return build_linear(config, parameters, "head")
    embedding = parameters["embedding.weight"]
    return Linear(embedding.narrow(0, *share.span(len(embedding))) if cuts_head(config, share) else embedding)
