"""What is to be trained, as plain values: how prompts are answered, and what decides a head. Imports no torch."""

from dataclasses import asdict, dataclass, field

from runtime.errors import EngineMisconfigured


@dataclass(frozen=True)
class Sampling:
    """How prompts are answered."""

    max_tokens: int = 256
    sampled_share: float = 0.5
    """Of the prompts; the others are answered greedily."""
    temperature: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Unrolling:
    """How many steps of drafting are learnt, and how much less each counts than the one before it."""

    num_steps: int = 7
    decay: float = 0.8

    @property
    def weights(self) -> list[float]:
        """Of the steps; they sum up to 1, so that the loss is that of a token."""
        raw = [self.decay**step for step in range(self.num_steps)]
        return [weight / sum(raw) for weight in raw]


@dataclass(frozen=True)
class HeadPlan:
    """What decides a head, besides target and answers."""

    draft_vocab_size: int = 32_000
    intermediate_size: int | None = None
    """None: the target's."""
    layers: tuple[int, ...] = ()
    """Which hidden states are read, see `target`; empty: the usual ones."""
    unrolling: Unrolling = field(default_factory=Unrolling)
    epochs: int = 3
    tokens_per_step: int = 16_384
    muon_lr: float = 0.02
    adam_lr: float | None = None
    """None: 0.004 for a hidden size of 256, less in proportion for a wider one."""
    seed: int = 0
    num_threads: int = 1
    """Of a CPU."""
    cpu_in_bfloat16: bool = False
    """Products on a CPU; on a GPU they always are."""
    graphs: bool = True
    """On a GPU, replay captured passes."""

    def describe(self) -> dict[str, str]:
        """What decides the weights, as words to compare."""
        return {name: str(value) for name, value in asdict(self).items() if name != "graphs"}


def default_layers(num_layers: int) -> tuple[int, ...]:
    """The three places after which heads read that do not say otherwise.

    Raises: EngineMisconfigured where a model is too shallow for them.
    """
    layers = (2, num_layers // 2, num_layers - 3)
    if len(set(layers)) < len(layers) or min(layers) < 1:
        raise EngineMisconfigured(
            f"a model of {num_layers} layers has no three default places for a head to read from: name them with --layers"
        )
    return layers
