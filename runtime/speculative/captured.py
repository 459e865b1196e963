"""Hidden states that a target's pass leaves behind for the head, picked up between its layers."""

from torch import Tensor


class CapturedStates:
    """The hidden states of one pass after some numbers of layers, side by side."""

    def __init__(self, layers: tuple[int, ...]) -> None:
        """
        Args:
            layers: how many layers each has passed.
        """
        self._layers = layers
        self._joined: Tensor | None = None

    def see(self, num_passed: int, hidden: Tensor) -> None:
        """Keep `hidden` [num_rows, hidden_size] if it has passed as many layers as asked; it may be changed afterwards.

        Capture-safe.
        """
        if num_passed not in self._layers:
            return
        size = hidden.shape[1]
        if self._joined is None:
            self._joined = hidden.new_empty(hidden.shape[0], size * len(self._layers))
        place = self._layers.index(num_passed)
        self._joined[:, place * size : (place + 1) * size].copy_(hidden)

    @property
    def joined(self) -> Tensor:
        """[num_rows, len(layers) * hidden_size]."""
        assert self._joined is not None, "no pass has been seen"
        return self._joined
