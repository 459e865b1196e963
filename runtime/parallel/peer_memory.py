"""Memory of one rank's GPU that the other ranks can read: its address on each of them.

By CUDA's interprocess handles, through the driver: 64 bytes that another process opens, while this one lives. NCCL would do
without, but needs a network, files and threads of its own; see docs/adr/0013-ranks-by-peer-memory.md.

Source: CUDA 13.0 `cuda.h`, CUDA programming guide, "Interprocess communication".
"""

import ctypes
import struct
from ctypes import c_char, c_size_t, c_uint, c_uint64

import torch
from torch import Tensor

from runtime.errors import EngineMisconfigured
from runtime.parallel.channel import Channel

_LAZY_ENABLE_PEER_ACCESS = 1
_OFFSET = struct.Struct("<Q")


class _Handle(ctypes.Structure):
    """`CUipcMemHandle`."""

    _fields_ = (("reserved", c_char * 64),)


def share_memory(memory: Tensor, channel: Channel) -> Tensor:
    """The address of every rank's `memory` on this one, [ranks] int64, on its device. Each rank calls it.

    Args:
        memory: on this rank's GPU; it has to stay as long as any rank may read it.
    Raises: EngineMisconfigured if a GPU cannot read another's memory.
    """
    driver = _Driver()
    own = driver.handle_of(memory.data_ptr())
    told = channel.exchange(own, b"".join)
    addresses = [
        memory.data_ptr() if rank == channel.share.rank else driver.open(told[rank * len(own) : (rank + 1) * len(own)])
        for rank in range(channel.share.size)
    ]
    return torch.tensor(addresses, dtype=torch.int64).to(memory.device)


class _Driver:
    """The few calls that this takes, in the context that torch works in."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    def handle_of(self, address: int) -> bytes:
        """What another process opens: a handle of the allocation, and where in it the address is."""
        handle, base, size = _Handle(), c_uint64(), c_size_t()
        self._call("cuMemGetAddressRange_v2", ctypes.byref(base), ctypes.byref(size), c_uint64(address))
        self._call("cuIpcGetMemHandle", ctypes.byref(handle), base)
        return bytes(handle) + _OFFSET.pack(address - base.value)

    def open(self, told: bytes) -> int:
        """The same address in this process."""
        handle, opened = _Handle.from_buffer_copy(told), c_uint64()
        try:
            self._call("cuIpcOpenMemHandle_v2", ctypes.byref(opened), handle, c_uint(_LAZY_ENABLE_PEER_ACCESS))
        except EngineMisconfigured as error:
            raise EngineMisconfigured(f"tp_size: the GPUs cannot read each other's memory: {error}") from error
        return opened.value + int(_OFFSET.unpack(told[ctypes.sizeof(_Handle) :])[0])

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text))
            raise EngineMisconfigured(f"{name}: {text.value.decode() if text.value else 'error'} ({code})")
