"""What is asked of a server: prompts of random token ids, with shared beginnings or without, or conversations that grow.

Token ids go to `/v1/completions`, conversations to `/v1/chat/completions`, as words: an answer is part of the next prompt.

The names and sizes are those by which the peers were measured, so that figures compare. All of a run is fixed by its seed.
"""

import random

import msgspec

LOWEST_TOKEN = 10
"""Ids below are often control tokens."""
_WORDS = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you"
    " were her all she there would their we him been has when who will more no if out so said what up its about into than them"
    " can only other new some could time these two may then do first any my now such like our over man me even most made after"
)
"""Common words, of about one token each."""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """One shape of load."""

    num_requests: int
    concurrency: int
    """Requests open at a time, closed loop."""
    prompt_tokens: int
    output_tokens: int
    shared_tokens: int = 0
    """Of the prompt, the beginning that a group of requests shares."""
    num_groups: int = 1
    num_turns: int = 1
    """More than one: each request is the next turn of a conversation, and `prompt_tokens` what the user says in all of them."""


WORKLOADS: dict[str, Workload] = {
    "warm": Workload(num_requests=32, concurrency=32, prompt_tokens=256, output_tokens=32),
    "bs1": Workload(num_requests=4, concurrency=1, prompt_tokens=128, output_tokens=512),
    "bs8": Workload(num_requests=32, concurrency=8, prompt_tokens=512, output_tokens=256),
    "chat": Workload(num_requests=512, concurrency=64, prompt_tokens=1024, output_tokens=256),
    "heavy": Workload(num_requests=768, concurrency=256, prompt_tokens=1024, output_tokens=512),
    "decode": Workload(num_requests=512, concurrency=512, prompt_tokens=128, output_tokens=512),
    "prefix": Workload(
        num_requests=512, concurrency=64, prompt_tokens=2304, output_tokens=64, shared_tokens=2048, num_groups=16
    ),
    "long": Workload(num_requests=8, concurrency=1, prompt_tokens=8192, output_tokens=8),
    "summ": Workload(num_requests=96, concurrency=32, prompt_tokens=8192, output_tokens=128),
    "turns": Workload(num_requests=256, concurrency=32, prompt_tokens=512, output_tokens=128, num_turns=8),
    "tiny": Workload(num_requests=8, concurrency=4, prompt_tokens=32, output_tokens=16),
    "small": Workload(num_requests=32, concurrency=8, prompt_tokens=64, output_tokens=32),
    "small_prefix": Workload(
        num_requests=32, concurrency=8, prompt_tokens=160, output_tokens=16, shared_tokens=128, num_groups=4
    ),
}


class Planned(msgspec.Struct, frozen=True):
    """A chain of requests: one, or the turns of a conversation, each sent when the one before has been answered."""

    prompt: list[int]
    """Token ids of the one request; empty for a conversation."""
    turns: list[str]
    """What the user says, turn by turn."""
    output_tokens: int


def plan_requests(workload: Workload, vocab_size: int, seed: int) -> list[Planned]:
    """Every request of a run."""
    rng = random.Random(seed)  # noqa: S311  (prompts, not secrets)

    def draw(count: int) -> list[int]:
        return [rng.randrange(LOWEST_TOKEN, vocab_size) for _ in range(count)]

    heads = [draw(workload.shared_tokens) for _ in range(workload.num_groups)]
    planned = []
    for number in range(-(-workload.num_requests // workload.num_turns)):
        prompt: list[int] = []
        turns: list[str] = []
        if workload.num_turns == 1:
            prompt = heads[number % workload.num_groups] + draw(workload.prompt_tokens - workload.shared_tokens)
        else:
            num_words = workload.prompt_tokens // workload.num_turns
            turns = [" ".join(rng.choices(_WORDS.split(), k=num_words)) for _ in range(workload.num_turns)]
        planned.append(Planned(prompt, turns, workload.output_tokens))
    return planned


def arrival_times(num_requests: int, requests_per_s: float, seed: int) -> list[float]:
    """Open loop: when each request is sent, seconds from the start; a Poisson process."""
    rng = random.Random(seed)  # noqa: S311
    times, now = [], 0.0
    for _ in range(num_requests):
        now += rng.expovariate(requests_per_s)
        times.append(now)
    return times
