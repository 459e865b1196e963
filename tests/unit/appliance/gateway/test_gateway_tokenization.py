"""Where prompts are tokenized: short ones at once, long ones beside the event loop."""

import threading
from types import SimpleNamespace

import pytest

from appliance.gateway.api.tokenization import LONG_CHARS, TokenizerThreads


@pytest.mark.parametrize(("num_chars", "is_beside"), [(LONG_CHARS - 1, False), (LONG_CHARS, True)])
async def test_a_long_prompt_is_tokenized_beside_the_event_loop(num_chars: int, is_beside: bool) -> None:
    """All streams of a worker wait for what is done in the loop."""
    threads: list[str] = []

    def encode(text: str) -> list[int]:
        threads.append(threading.current_thread().name)
        return [len(text)]

    tokenizer = SimpleNamespace(verify_may_fit=lambda *_: None, encode_prompt=encode)
    model = SimpleNamespace(tokenizer=tokenizer)
    ids = await TokenizerThreads().prompt(model, "a" * num_chars, 1 << 20, "prompt")  # type: ignore[arg-type]
    assert ids == [num_chars]
    assert [name.startswith("tokenizer") for name in threads] == [is_beside]
