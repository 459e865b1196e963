"""Every parser of bytes that a stranger, a client, a courier or a peer can write, and the errors that it may raise.

A parser takes bytes and gives a value or an error of its pillar's own family; anything else that comes out of it is a bug.
"""

import json
from collections.abc import Callable
from typing import Any

from authlib.oauth2 import OAuth2Error  # type: ignore[import-untyped]

from appliance.gateway.api.chat_request import parse_chat_request
from appliance.gateway.api.completion_request import parse_completion_request
from appliance.gateway.api.generate_request import parse_generate_request
from appliance.gateway.api.messages_request import chat_body as chat_of_messages
from appliance.gateway.api.messages_request import parse_messages
from appliance.gateway.api.responses_request import chat_body as chat_of_response
from appliance.gateway.api.responses_request import input_items, parse_responses
from appliance.gateway.body import parse_object
from appliance.gateway.errors import GatewayFault
from appliance.gateway.settings import GatewaySettings
from appliance.gateway.tools.events import CallParser, gather
from appliance.gateway.tools.form_names import CallForm
from appliance.gateway.tools.forms import Forms
from appliance.gateway.tools.json_call import parse_call
from appliance.gateway.tools.reader import AnswerReader
from appliance.gateway.tools.reasoning import ReasoningParser
from appliance.gateway.trace_context import trace_of
from audit.checkpoint import parse_checkpoint
from audit.cosignature import parse_cosigner_key
from audit.entry import parse_canonical, parse_event
from audit.errors import AuditFault
from audit.note import parse_note, parse_verifier_key
from audit.proof import parse_proof
from audit.receipt import parse_receipt
from audit.tiles import ENTRIES, TileId, parse_bundle, parse_tile_path
from audit.witness import parse_request
from runtime.errors import RuntimeFault
from runtime.weights.config import parse_model_config
from runtime.weights.header import parse_header
from security.bundles.release import parse_release
from security.errors import SecurityFault
from security.json_object import parse_json_object
from security.oauth.dpop import verify_proof
from security.oauth.jws import parse_jws
from security.oauth.key_set import parse_key_set
from security.oauth.token_request import parse_basic, parse_form
from security.stewards.envelope import parse_envelope
from security.stewards.role_file import parse_role_file
from security.stewards.truss import parse_truss_config
from security.supply_chain.sbom import parse_sbom
from security.supply_chain.vex import parse_vex

Parser = Callable[[bytes], object]
FAMILIES = (GatewayFault, SecurityFault, OAuth2Error, AuditFault, RuntimeFault)
"""OAuth2Error is what the token endpoint answers with, in RFC 6749's words."""
TILE = TileId(ENTRIES, 0, 2)
SETTINGS = GatewaySettings()


def text(parse: Callable[[str], object]) -> Parser:
    """A parser of text; bytes that are no UTF-8 never reach it."""
    return lambda data: parse(data.decode("utf-8", "replace"))


def body(parse: Callable[[dict[str, Any]], object]) -> Parser:
    """A parser of what the gateway has read as one JSON object."""
    return lambda data: parse(parse_object(data))


def read_answer(calls: CallParser, data: bytes) -> object:
    """An answer of a model that reasons, in two pieces; the first byte says where it is cut."""
    answer = data[1:].decode("utf-8", "replace")
    cut = len(answer) * (data[0] if data else 0) // 255
    reader = AnswerReader(calls, ReasoningParser(is_open=False))
    return gather([*reader.feed(answer[:cut]), *reader.feed(answer[cut:]), *reader.finish()])


def answer(form: CallForm) -> Parser:
    """The parser of a form's calls."""
    return lambda data: read_answer(Forms(form).new_call_parser(), data)


def parse_response(body: dict[str, Any]) -> object:
    """A responses request as the chat request that it becomes."""
    fields = parse_responses(body)
    return parse_chat_request(chat_of_response(fields, input_items(fields)), SETTINGS)


PARSERS: dict[str, tuple[Parser, bytes]] = {
    "chat request": (
        body(lambda given: parse_chat_request(given, SETTINGS)),
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"tools":[{"type":"function",'
        b'"function":{"name":"f","parameters":{"type":"object"}}}],"stop":["x"],"response_format":{"type":"json_object"}}',
    ),
    "completion request": (
        body(lambda given: parse_completion_request(given, SETTINGS)),
        b'{"model":"m","prompt":[[1,2],[3]],"logit_bias":{"5":-1},"n":2,"stop":"a"}',
    ),
    "generate request": (
        body(lambda given: parse_generate_request(given, SETTINGS)),
        b'{"input_ids":[1],"sampling_params":{"regex":"a+","max_new_tokens":3}}',
    ),
    "responses request": (
        body(parse_response),
        b'{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"a"}]},{"type":"function_call","call_id":"c",'
        b'"name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"x"},{"type":"reasoning","summary":[],'
        b'"content":[{"type":"reasoning_text","text":"t"}],"status":null},{"role":"assistant","content":[{"type":"output_text",'
        b'"text":"b","logprobs":[{"token":"b","logprob":-1,"top_logprobs":[]}]}]}],"tools":[{"type":"function","name":"f",'
        b'"later":null}],"include":["message.output_text.logprobs"],"top_logprobs":1}',
    ),
    "messages request": (
        body(
            lambda given: parse_chat_request(
                chat_of_messages(parse_messages(given), reasons=True, has_effort=True), SETTINGS
            )
        ),
        b'{"model":"m","max_tokens":9,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{}}]},'
        b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"x"}]}],"tools":[{"name":"f","input_schema":{}}]}',
    ),
    "answer with hermes calls": (
        answer("hermes"),
        b'\x80<think>a</think>b<tool_call>{"name":"f","arguments":{"a":[1]}}</tool_call>c',
    ),
    "answer with llama3_json calls": (
        answer("llama3_json"),
        b'\x80<|python_tag|>{"name":"f","parameters":{"a":1}};{"name":"g"}',
    ),
    "answer with mistral calls": (
        answer("mistral"),
        b'\x80a[TOOL_CALLS][{"name":"f","arguments":{}}][TOOL_CALLS]g[CALL_ID]1[ARGS]{}',
    ),
    "answer with pythonic calls": (answer("pythonic"), b"\x80[f(a='x', b=[1, {'c': None}]), g()] text"),
    "answer with DeepSeek calls": (
        answer("deepseek"),
        "\x00<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>".encode(),
    ),
    "trace context": (
        lambda data: trace_of([(b"traceparent", data)]),
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    "tool call": (text(parse_call), b'{"name": "f", "arguments": {"a": [1, "b"]}}'),
    "form": (parse_form, b"grant_type=client_credentials&scope=a+b&client_id=%41"),
    "basic credentials": (text(parse_basic), b"Basic YTpi"),
    "signed token": (text(parse_jws), b"eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.e30.c2ln"),
    "DPoP proof": (
        text(lambda data: verify_proof((data,), method="POST", urls=frozenset({"https://a/b"}), now=1.0)),
        b"eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIn19.e30.c2ln",
    ),
    "key set": (
        parse_key_set,
        b'{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}',
    ),
    "JSON object": (parse_json_object, b'{"a":[1,2.5,"b",null]}'),
    "envelope": (parse_envelope, b'{"payload":"e30=","payloadType":"t","signatures":[{"keyid":"a","sig":"AA=="}]}'),
    "role file": (parse_role_file, b'{"version":1,"people":[]}'),
    "release": (parse_release, b'{"version":"1.2.3"}'),
    "Truss configuration": (parse_truss_config, b"model_name: a\nrequirements: []\nbuild_commands:\n - x\n"),
    "SBOM": (parse_sbom, b'{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"name":"a","version":"1"}]}'),
    "VEX": (parse_vex, b'{"@context":"c","statements":[{"vulnerability":{"name":"a"},"status":"fixed"}]}'),
    "note": (parse_note, b"a\n1\nAAAA\n\n\xe2\x80\x94 a AAAAAAAA\n"),
    "verifier key": (text(parse_verifier_key), b"a+00000000+AQ=="),
    "cosigner key": (text(parse_cosigner_key), b"a+00000000+BA=="),
    "checkpoint": (text(parse_checkpoint), b"a\n12\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"),
    "proof": (parse_proof, b"c2sp.org/tlog-proof@v1\nindex 0\n\na\n1\nAAAA\n"),
    "receipt": (parse_receipt, b'{"intent":{"index":1,"record":"{}","proof":"p"},"outcome":null,"log_vkey":"k"}'),
    "event": (parse_event, b'{"a":1,"b":["c",{"d":"e"}],"metadata":{"version":"1"}}'),
    "record": (parse_canonical, b'{"a":1,"b":["c",{"d":"e"}]}'),
    "tile path": (text(parse_tile_path), b"tile/0/x001/234.p/5"),
    "entry bundle": (lambda data: parse_bundle(data, TILE), b"\x00\x02{}\x00\x03abc"),
    "witness request": (parse_request, b"old 1\nAAAA\n\na\n2\nAAAA\n\n\xe2\x80\x94 a AAAA\n"),
    "weights header": (
        lambda data: parse_header(data, 1024, where="a file"),
        b'{"w":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]},"__metadata__":{"a":"b"}}',
    ),
    "model configuration": (
        lambda data: parse_model_config(_any_object(data), {}),
        b'{"architectures":["LlamaForCausalLM"],"hidden_size":64,"num_attention_heads":4,"vocab_size":9,"rope_theta":1e4}',
    ),
}
"""By name: the parser, and an input that it accepts, or nearly, to start from."""


def _any_object(data: bytes) -> dict[str, Any]:
    """What the model folder's reader hands on: any JSON object."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def attack(name: str, data: bytes) -> None:
    """Give a parser some bytes. Whatever it raises out of its family leaves this function."""
    try:
        PARSERS[name][0](data)
    except FAMILIES:
        pass
