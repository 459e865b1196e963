"""`POST /generate`, SGLang's native request: text or ids, and `sampling_params` by its names."""

from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from appliance.gateway.api.completion_request import Prompt, parse_prompts
from appliance.gateway.api.fields import MAX_PATTERN_CHARS, Name, NoneOrTokens, SamplingFields, TopLogprobs
from appliance.gateway.api.native_members import REQUEST_INERT, SAMPLING_INERT, with_one_for_all, without_inert
from appliance.gateway.api.parameters import parse_members, parse_parameters, parse_stops, verify_always
from appliance.gateway.api.structured import Structure, parse_patterns, verify_sampling
from appliance.gateway.errors import BadRequest
from appliance.gateway.settings import GatewaySettings
from runtime.request import MAX_CHOICES, MAX_TOKENS


class NativeSampling(SamplingFields, kw_only=True):
    """`sampling_params`."""

    max_new_tokens: NoneOrTokens = 128
    min_new_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] = 0
    stop: str | list[Any] = field(default_factory=list)
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] = 1
    sampling_seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    no_stop_trim: bool = False
    include_stop_str_in_output: bool = False
    json_schema: Annotated[str, Meta(min_length=1)] | None = None
    regex: Annotated[str, Meta(min_length=1, max_length=MAX_PATTERN_CHARS)] | None = None
    ebnf: Annotated[str, Meta(min_length=1, max_length=MAX_PATTERN_CHARS)] | None = None


class GenerateFields(Struct, kw_only=True):
    """The body's members."""

    text: str | list[str] | None = None
    input_ids: list[Any] | None = None
    sampling_params: dict[str, Any] = {}
    model: Name | None = None
    stream: bool = False
    return_logprob: bool = False
    logprob_start_len: Annotated[int, Meta(ge=-1)] = -1
    top_logprobs_num: TopLogprobs = 0
    return_text_in_logprobs: bool = False
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0


@dataclass(frozen=True)
class GenerateRequest:
    """A native request that is sound in itself."""

    fields: GenerateFields
    sampling: NativeSampling
    prompts: list[Prompt]
    is_list: bool
    """Several prompts were asked for as a list, so a list is the answer."""
    stops: tuple[str, ...]
    structure: Structure | None

    @property
    def logprobs(self) -> int:
        """Of `SamplingParams`: -1 for none."""
        return self.fields.top_logprobs_num if self.fields.return_logprob else -1

    @property
    def prompt_logprobs(self) -> int:
        """Those of the prompt, from `logprob_start_len` on."""
        return self.logprobs if self.fields.logprob_start_len >= 0 else -1

    def where(self, index: int) -> str:
        """Name of one prompt in errors."""
        name = "text" if self.fields.input_ids is None else "input_ids"
        return f"{name}[{index}]" if self.is_list else name


def parse_generate_request(body: dict[str, Any], settings: GatewaySettings) -> GenerateRequest:
    """Check a body.

    Raises: BadRequest.
    """
    fields = parse_parameters(with_one_for_all(without_inert(body, REQUEST_INERT)), GenerateFields)
    if (fields.text is None) == (fields.input_ids is None):
        raise BadRequest("missing_parameter", "give either text or input_ids", parameter="text")
    sampling = _parse_sampling(fields.sampling_params)
    given: str | list[Any] | None = fields.text if fields.input_ids is None else fields.input_ids
    assert given is not None
    parameter = "text" if fields.input_ids is None else "input_ids"
    prompts = parse_prompts(given, settings.max_prompts, parameter)
    is_list = isinstance(given, list) and type(given[0]) is not int
    stops = parse_stops(sampling.stop, "sampling_params.stop")
    structure = parse_patterns(sampling.regex, sampling.ebnf, sampling.json_schema, "sampling_params.")
    if structure is not None:
        verify_sampling(sampling, structure)
    return GenerateRequest(fields, sampling, prompts, is_list, stops, structure)


def _parse_sampling(given: dict[str, Any]) -> NativeSampling:
    given = without_inert(given, SAMPLING_INERT, "sampling_params.")
    sampling = parse_members(given, NativeSampling, "sampling_params")
    verify_always(sampling, "sampling_params.")
    if sampling.sampling_seed is not None:
        sampling.seed = sampling.sampling_seed
    sampling.min_tokens = max(sampling.min_tokens, sampling.min_new_tokens)
    return sampling
