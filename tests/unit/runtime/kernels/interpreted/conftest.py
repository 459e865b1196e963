"""These tests run in a process of their own, started by `test_interpreted.py` with TRITON_INTERPRET=1: Triton reads that
variable when it is imported, and what it decorates then cannot be compiled.

Triton 3.6's interpreter makes bounds of loops with `int(array)`, which numpy 2.4 refuses for arrays of one element that
have a dimension. That one conversion is mended here. Its matrix products know no bf16, and its conversions to narrower
floats truncate, so these tests run in fp16; bf16 is tested on a GPU. Inline assembly it has none: where a kernel computes by it,
the same is said in Triton here.

Every load and store of every test is held against the memory of the kernel's arguments.
"""

import os
from collections.abc import Iterator

import pytest

from tests.support.kernel_bounds import KernelBounds

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]


@pytest.fixture(autouse=True)
def mended_loop_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_and_mend(tensor: type, scope: object) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))  # type: ignore[attr-defined]

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch_and_mend)


@pytest.fixture(autouse=True)
def spelled_out_assembly(monkeypatch: pytest.MonkeyPatch) -> None:
    from runtime.kernels.triton import decode_e4m3
    from tests.support import spelled_out

    monkeypatch.setattr(decode_e4m3, "unpack", spelled_out.unpack)


@pytest.fixture(autouse=True)
def bounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[KernelBounds]:
    watched = KernelBounds(monkeypatch)
    yield watched
    assert not watched.violations, "\n".join(watched.violations[:10])
