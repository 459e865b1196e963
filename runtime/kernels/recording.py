"""Which kernels a piece of work launches, found out by running it without launching any.

The work runs on tensors of the `meta` device, which have shapes and dtypes and no memory, so no GPU is needed. What is
recorded is what would have been launched: the same wrappers call the same `launch`.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from runtime.kernels.launching import POINTER_ALIGNMENT, Argument, Constant, Options, Variant, variant_of


class RecordingLauncher:
    """See `runtime.kernels.launching.Launcher`; nothing is computed, outputs keep what they held."""

    def __init__(self) -> None:
        self.variants: set[Variant] = set()

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        arguments: Sequence[Argument],
        constants: Mapping[str, Constant],
        options: Options,
    ) -> None:
        """See `Launcher.launch`.

        Raises: ValueError for a tensor whose place in its memory breaks the alignment that kernels rely on.
        """
        for argument in arguments:
            if isinstance(argument, Tensor):
                offset = argument.storage_offset() * argument.element_size()
                if offset % POINTER_ALIGNMENT:
                    raise ValueError(
                        f"{kernel}: a tensor of {tuple(argument.shape)} begins {offset} bytes into its memory"
                    )
        self.variants.add(variant_of(kernel, arguments, constants, options))
