"""What lies between the attentions of two layers, as graphs: one for each layer and each of some numbers of rows.

Attention of prompt chunks depends on how many tokens each sequence has, and runs outside a graph; the rest of a layer depends on
the number of rows alone. A step takes the smallest size that holds it. The rows left over are tokens at position 0 of page 0;
attention is over the step's own, so what it leaves in the others is older, and read by nobody.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from runtime.attention.device import DevicePlan
from runtime.models.fused import FusedDecoder, StepRows
from runtime.runner.graphs import Capture, Replay, capture_order, piece_sizes
from runtime.runner.step_buffers import RunnerLimits, StepBuffers
from runtime.runner.step_inputs import EMPTY_STEP, StepLayout, StepShape, StepViews, build_tables, pack_step
from runtime.runner.upload import UploadPool
from runtime.step_sizes import smallest_holding


class Pieces:
    """The pieces of one runner's model, over its buffers."""

    def __init__(
        self, model: FusedDecoder, pages: Tensor, buffers: StepBuffers, uploads: UploadPool, limits: RunnerLimits
    ) -> None:
        self._model, self._pages, self._buffers, self._uploads = model, pages, buffers, uploads
        self._sizes = piece_sizes(min(limits.piecewise_cuda_graph_max_tokens, limits.max_rows))
        self._replays: dict[int, list[Replay]] = {}

    def keep_largest(self) -> None:
        """Only the largest size will be captured: it needs as much memory as all."""
        del self._sizes[:-1]

    def capture(self, capture: Capture, advance: Callable[[], None]) -> None:
        """Capture every size, the largest first; `advance` is called after each."""
        for size in capture_order(self._sizes):
            self._replays[size] = self._capture(size, capture)
            advance()

    def size_of(self, num_rows: int) -> int | None:
        """Rows of the pieces for a step of so many; None: it runs without."""
        size = smallest_holding(self._sizes, num_rows)
        return size if size in self._replays else None

    def run(self, size: int, plan: DevicePlan, rows: StepRows, num_rows: int) -> None:
        """Enqueue all layers up to the last attention, see `FusedDecoder.run`.

        Args:
            rows: `size` of them, of which the first `num_rows` are the step's.
        """
        query, attended = rows.query[:num_rows], rows.attended[:num_rows]
        for layer, piece in enumerate(self._replays[size]):
            piece.replay()
            plan.attend(layer, query, attended)

    def _capture(self, size: int, capture: Capture) -> list[Replay]:
        """Their inputs lie where those of any step with so many rows do, however many sequences it has."""
        layout = StepLayout(StepShape(size, 0, 0))
        upload = self._uploads.next()
        upload.send(self._buffers.inputs, pack_step(upload.words, layout, EMPTY_STEP, build_tables(EMPTY_STEP, 0)))
        rows = self._buffers.rows_of(StepViews(self._buffers.inputs, layout))
        pieces = [partial(self._model.advance, index, rows, self._pages) for index in range(self._model.num_layers)]
        for piece in pieces[:2]:  # The others launch what the second does.
            capture.warm_up(piece)
        return [capture.capture(piece) for piece in pieces]
