"""Which kernels a piece of work launches, found out by running it without launching any.

The work runs on tensors of the `meta` device, which have shapes and dtypes and no memory, so no GPU is needed. What is
recorded is what would have been launched: the same wrappers call the same `launch`.
"""

from collections.abc import Mapping, Sequence

from runtime.kernels.launching import Argument, Constant, Options, Variant, variant_of, verify_tensors


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

        Raises: ValueError for a tensor that no kernel can take, see `verify_tensors`.
        """
        verify_tensors(kernel, arguments)
        self.variants.add(variant_of(kernel, arguments, constants, options))
