"""Where a head comes from: a folder whose bytes are checked, or random numbers of its shapes."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from runtime.errors import CheckpointRejected
from runtime.speculative.config import load_head_config
from runtime.speculative.head import DraftHead
from runtime.speculative.loading import build_dummy_head, load_head_weights
from runtime.weights.config import CONFIG_FILE, ModelConfig
from runtime.weights.file_check import FileCheck
from runtime.weights.folder import verify_model_folder


@dataclass(frozen=True, slots=True)
class LoadedHead:
    """A head that fits its target, and the digest of the files that it came from."""

    head: DraftHead
    digest: str


@dataclass(frozen=True, slots=True)
class HeadSource:
    """The folder of a head, and who checks its files."""

    folder: Path
    is_dummy: bool = False
    """Random weights, for measurements; the folder needs a configuration only."""
    verify: FileCheck | None = None
    levels: tuple[int, ...] = ()
    """Numbers of drafts that a GPU captures graphs for, ascending, from 0; empty: those that adaptation chooses from."""
    topk: int = 1
    """Tokens that are tried behind each draft: its vocabulary must have so many."""

    def load(self, target: ModelConfig, embedding: Tensor, *, num_positions: int) -> LoadedHead:
        """Read the head onto the device of its target's embedding.

        Args:
            embedding: [vocab_size, hidden_size]; gives device and dtype as well.
            num_positions: bound of the positions that may occur.
        Raises: CheckpointRejected, naming what does not fit; whatever `verify` raises.
        """
        try:
            verify_model_folder(self.folder)
            config = load_head_config(self.folder, target)
            if config.draft_vocab_size < self.topk:
                raise CheckpointRejected(
                    f"{self.folder.name}/{CONFIG_FILE}: draft_vocab_size: expected at least speculative_eagle_topk "
                    f"({self.topk}), found {config.draft_vocab_size}"
                )
            if self.is_dummy:
                weights = build_dummy_head(config, device=embedding.device, dtype=embedding.dtype)
            else:
                weights = load_head_weights(self.folder, config, embedding, verify=self.verify)
        except CheckpointRejected as error:
            raise CheckpointRejected(f"speculative_draft_model_path: {error}") from error
        return LoadedHead(DraftHead(config, weights, embedding, num_positions=num_positions), weights.digest)
