"""What the trainer computes for a head is what drafting step by step computes, and its loss is what it says."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from runtime.errors import EngineMisconfigured
from runtime.layers.norm import RMSNorm
from runtime.layers.rotary import apply_rotary
from runtime.training.documents import Documents, Rows
from runtime.training.draft.head import DraftHead, shape_for
from runtime.training.draft.plan import Unrolling, default_layers
from runtime.training.draft.target import Target, load_target
from runtime.training.draft.trainee import DraftTrainee, answers_of, everywhere
from runtime.training.draft.unrolling import shift, unroll
from runtime.training.draft.vocabulary import DraftVocabulary, choose_vocabulary
from tests.support.tiny_targets import TINY, TINY_LAYERS, write_tiny_target

NUM_STEPS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target's folder."""
    place = tmp_path_factory.mktemp("target")
    write_tiny_target(place)
    return place


@pytest.fixture(scope="module")
def target(folder: Path) -> Target:
    """A target, loaded as the trainer does."""
    return load_target(folder, device="cpu", num_positions=64)


def random_head(target: Target, draft_vocab_size: int = 20) -> DraftHead:
    """A head that no weight of is zero."""
    shape = shape_for(
        target.config, draft_vocab_size=draft_vocab_size, intermediate_size=24, captured_layers=TINY_LAYERS
    )
    head = DraftHead(shape, 1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + (parameter.dim() == 1))
    return head


class SlowHead:
    """The head as serving runs it: one entry after the other over a list of keys and values."""

    def __init__(self, head: DraftHead, target: Target) -> None:
        self.weights = {name: parameter.detach() for name, parameter in head.named_parameters()}
        self.shape, self.target = head.shape, target
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def enter(self, hidden: Tensor, token: int, position: int) -> Tensor:
        """One entry: the hidden state [hidden_size] of `position` and the token after it."""
        weights, shape = self.weights, self.shape
        joined = torch.cat(
            (
                self.norm("midlayer.input_layernorm", self.target.embed(torch.tensor(token))),
                self.norm("midlayer.hidden_norm", hidden),
            )
        )
        query, key, value = (
            (weights[f"midlayer.self_attn.{name}_proj.weight"] @ joined).view(-1, shape.head_dim) for name in "qkv"
        )
        cosines, sines = self.target.rotary.at(torch.tensor([position]))
        query, key = (apply_rotary(heads[None], cosines, sines)[0] for heads in (query, key))
        self.keys.append(key)
        self.values.append(value)
        group = shape.num_heads // shape.num_kv_heads
        mixed = []
        for index in range(shape.num_heads):
            scores = torch.stack([query[index] @ key[index // group] for key in self.keys]) * shape.head_dim**-0.5
            shares = scores.softmax(0)
            mixed.append(sum(share * value[index // group] for share, value in zip(shares, self.values, strict=True)))
        hidden = hidden + weights["midlayer.self_attn.o_proj.weight"] @ torch.cat(mixed)
        normed = self.norm("midlayer.post_attention_layernorm", hidden)
        gate, up = (weights[f"midlayer.mlp.{name}_proj.weight"] @ normed for name in ("gate", "up"))
        return hidden + weights["midlayer.mlp.down_proj.weight"] @ (torch.nn.functional.silu(gate) * up)

    def norm(self, name: str, row: Tensor) -> Tensor:
        return RMSNorm(self.weights[f"{name}.weight"], self.shape.rms_norm_eps)(row)


def draft_slowly(head: DraftHead, target: Target, captured: Tensor, tokens: list[int], first: int) -> Iterator[Tensor]:
    """Hidden states of the steps of one round that begins at `first`, as long as the text has tokens for them."""
    slow = SlowHead(head, target)
    states = captured @ slow.weights["fc.weight"].T
    for position in range(first + 1):
        hidden = slow.enter(states[position], tokens[position + 1], position)
    yield hidden
    for step in range(1, NUM_STEPS):
        if first + step + 1 >= len(tokens):
            return
        hidden = slow.enter(hidden, tokens[first + step + 1], first + step)
        yield hidden


@torch.no_grad()
def test_unrolled_steps_are_those_of_drafting_one_after_the_other(target: Target) -> None:
    """At every position and step: same keys attended to, same positions, same hidden states fed back (float32 sums in
    another order: 1e-4)."""
    head = random_head(target)
    tokens = torch.randint(48, (2, 13), generator=torch.Generator().manual_seed(3))
    captured = target.read(tokens, TINY_LAYERS).captured
    steps = list(unroll(head, target.rotary, captured, target.embed(tokens), everywhere(tokens), NUM_STEPS))
    for row in range(2):
        for first in range(12):
            for step, hidden in enumerate(draft_slowly(head, target, captured[row], tokens[row].tolist(), first)):
                torch.testing.assert_close(steps[step][row, first], hidden, rtol=1e-4, atol=1e-4)


def test_captured_states_are_those_after_so_many_layers(folder: Path, target: Target) -> None:
    """Judged by the training form of Llama, which shares no code with the serving one."""
    model = write_tiny_target(folder)
    tokens = torch.randint(48, (3, 17), generator=torch.Generator().manual_seed(4))
    read = target.read(tokens, TINY_LAYERS)
    states = [model.model.embed_tokens(tokens)]
    for layer in model.model.layers:
        states.append(layer(states[-1], model.model.rotary, None))
    torch.testing.assert_close(
        read.captured, torch.cat([states[after] for after in TINY_LAYERS], -1), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        target.logits(read.last), model.logits(model.model.norm(states[-1])), rtol=1e-4, atol=1e-4
    )


def texts() -> tuple[Documents, list[tuple[list[int], int]]]:
    """Three texts of different lengths, with the lengths of their prompts."""
    random = torch.Generator().manual_seed(9)
    made = [
        (torch.randint(48, (length,), generator=random).tolist(), num_prompt)
        for length, num_prompt in ((14, 5), (9, 1), (6, 4))
    ]
    documents = Documents.of((tokens, [0] * count + [1] * (len(tokens) - count)) for tokens, count in made)
    return documents, made


def block(documents: Documents) -> Rows:
    """All of them, padded to more than the longest needs."""
    return documents.rows(range(len(documents)), shape=(len(documents) + 1, 16))


@torch.no_grad()
def test_loss_is_the_weighted_cross_entropy_of_what_serving_drafts(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restated place by place: rounds from the first answer token on, targets over the draft vocabulary, no place whose first
    choice cannot be drafted."""
    head, unrolling = random_head(target, 32), Unrolling(NUM_STEPS, 0.7)
    vocabulary = choose_vocabulary([[3, 5, 7]], vocab_size=48, draft_vocab_size=32, always=[2])
    documents, made = texts()
    expected, num_places = torch.zeros(()), 0
    for tokens, num_prompt in made:
        read = target.read(torch.tensor([tokens]), TINY_LAYERS)
        logits = target.logits(read.last)[0]
        for first in range(num_prompt - 1, len(tokens) - 2):
            for step, hidden in enumerate(draft_slowly(head, target, read.captured[0], tokens, first)):
                place = first + step + 1
                if place > len(tokens) - 2 or int(logits[place].argmax()) not in vocabulary.target_ids.tolist():
                    continue
                wanted = logits[place][vocabulary.target_ids].softmax(0)
                said = head.logits(hidden).log_softmax(0)
                expected -= unrolling.weights[step] * (wanted * said).sum()
                num_places += 1
    assert num_places > 10
    rows = block(documents)
    trainee = DraftTrainee(head, target, vocabulary, unrolling)
    for beginnings in (answers_of, everywhere):  # what a CPU computes, and what a GPU does
        monkeypatch.setattr("runtime.training.draft.trainee.answers_of", beginnings)
        loss = trainee.loss(rows.tokens, rows.targets)
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    assert sum(unrolling.weights) == pytest.approx(1.0)


@torch.no_grad()
def test_hits_are_the_drafts_that_equal_the_text(target: Target) -> None:
    """Wherever the drafts before it were right, a hit is a greedy draft that is the text's own token."""
    head = random_head(target, draft_vocab_size=48)
    vocabulary = DraftVocabulary(torch.arange(48), 48)
    tokens = [4, 9, 1]
    captured = target.read(torch.tensor([tokens]), TINY_LAYERS).captured[0]
    while len(tokens) < 12:  # of its own drafts, with a wrong one now and then
        captured = target.read(torch.tensor([tokens]), TINY_LAYERS).captured[0]
        draft = int(head.logits(next(draft_slowly(head, target, captured, tokens, len(tokens) - 2))).argmax())
        tokens.append(draft if len(tokens) % 4 else (draft + 1) % 48)
    rows = Documents.of([(tokens, [1] * len(tokens))]).rows([0])
    hits = DraftTrainee(head, target, vocabulary, Unrolling(NUM_STEPS)).hits(rows.tokens, rows.targets, NUM_STEPS)
    captured = target.read(torch.tensor([tokens]), TINY_LAYERS).captured[0]
    seen = set()
    for first in range(len(tokens) - 2):
        for step, hidden in enumerate(draft_slowly(head, target, captured, tokens, first)):
            if first + step + 2 < len(tokens):
                is_right = int(head.logits(hidden).argmax()) == tokens[first + step + 2]
                assert bool(hits[step, 0, first]) == is_right
                seen.add(is_right)
    assert seen == {True, False}


def test_only_the_head_is_learnt(target: Target) -> None:
    """Gradients reach every weight of the head, and nothing of the target has one."""
    head = random_head(target)
    vocabulary = choose_vocabulary([], vocab_size=48, draft_vocab_size=20, always=[])
    trainee = DraftTrainee(head, target, vocabulary, Unrolling(3))
    rows = block(texts()[0])
    trainee.loss(rows.tokens, rows.targets).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for _, parameter in trainee.named_parameters())
    assert target.embedding.grad is None
    assert not target.embedding.requires_grad


def test_shifted_columns_come_from_the_right_and_end_in_zeros() -> None:
    """By less than the width, and by more."""
    columns = torch.arange(1, 5)[None]
    assert shift(columns, 1).tolist() == [[2, 3, 4, 0]]
    assert shift(columns, 4).tolist() == shift(columns, 9).tolist() == [[0, 0, 0, 0]]


def test_usual_places_of_capture_need_a_deep_enough_model() -> None:
    """Those of a head that names none are 2, half and all but 3; a model whose three would coincide is refused."""
    assert default_layers(32) == (2, 16, 29)
    with pytest.raises(EngineMisconfigured, match="--layers"):
        default_layers(6)


def test_tiny_target_is_the_one_that_heads_fit(target: Target) -> None:
    """The support's shape reaches the head."""
    shape = random_head(target).shape
    assert (shape.hidden_size, shape.head_dim, shape.num_kv_heads) == (TINY.hidden_size, TINY.head_dim, 2)
    assert shape.num_parameters == sum(parameter.numel() for parameter in random_head(target).parameters())
