"""What is sent to a TPM and what comes back: big-endian numbers, and buffers with their length before them (TPM2B).

Reading never goes past the end. Whoever parses what was signed MUST call `end`: bytes left over would have a meaning that nobody
looked at.
"""

import struct

from security.errors import QuoteRejected

ALG_ECC, ALG_ECDSA, ALG_NULL, ALG_SHA256 = 0x0023, 0x0018, 0x0010, 0x000B
CURVE_P256 = 0x0003
NUM_PCRS = 24


def u8(value: int) -> bytes:
    """One byte."""
    return struct.pack(">B", value)


def u16(value: int) -> bytes:
    """Two bytes."""
    return struct.pack(">H", value)


def u32(value: int) -> bytes:
    """Four bytes."""
    return struct.pack(">I", value)


def sized(content: bytes) -> bytes:
    """A TPM2B: the length in two bytes, and the content."""
    return u16(len(content)) + content


def encode_selection(pcrs: tuple[int, ...]) -> bytes:
    """A TPML_PCR_SELECTION of one bank, SHA-256 (part 2, 10.9.7)."""
    bitmap = sum(1 << pcr for pcr in pcrs).to_bytes(NUM_PCRS // 8, "little")
    return u32(1) + u16(ALG_SHA256) + u8(len(bitmap)) + bitmap


class Reader:
    """Bytes that are taken from the front."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    def take(self, count: int) -> bytes:
        """So many bytes. Raises: QuoteRejected if there are fewer."""
        if count > len(self._left):
            raise QuoteRejected(f"TPM structure: {count} bytes were expected, {len(self._left)} are left")
        taken, self._left = self._left[:count], self._left[count:]
        return taken

    def number(self, size: int) -> int:
        """An unsigned number of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        """The content of a TPM2B."""
        return self.take(self.number(2))

    def selection(self) -> tuple[int, ...]:
        """The PCRs of a TPML_PCR_SELECTION that names the SHA-256 bank and no other."""
        banks = self.number(4)
        if banks != 1 or self.number(2) != ALG_SHA256:
            raise QuoteRejected("TPM structure: PCRs are selected in other banks than SHA-256")
        bitmap = int.from_bytes(self.take(self.number(1)), "little")
        return tuple(pcr for pcr in range(bitmap.bit_length()) if bitmap >> pcr & 1)

    def rest(self) -> bytes:
        """What is left."""
        return self.take(len(self._left))

    def end(self) -> None:
        """Raises: QuoteRejected if anything is left."""
        if self._left:
            raise QuoteRejected(f"TPM structure: {len(self._left)} bytes too many")
