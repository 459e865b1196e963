"""The section `[tpm]`: who vouches for the running statement besides this host."""

from typing import Annotated, Literal

import msgspec

Pcr = Annotated[int, msgspec.Meta(ge=0, le=23)]


class TpmSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TPM 2.0 that signs the digest of the running statement at each start."""

    quote: Annotated[
        Literal["auto", "required", "off"],
        msgspec.Meta(
            description="`auto` has the statement quoted where there is a TPM that may be used, and says so where there is none; "
            "`required` refuses to start without a quote."
        ),
    ] = "auto"
    device: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=4096,
            description="The TPM, through the kernel's resource manager; or the socket of a software TPM.",
        ),
    ] = "/dev/tpmrm0"
    pcrs: Annotated[
        tuple[Pcr, ...],
        msgspec.Meta(
            min_length=1,
            max_length=24,
            description="Registers that are quoted along, of the SHA-256 bank: 0 to 7 hold what the firmware measured, "
            "others what boot loader and kernel did.",
        ),
    ] = (0, 1, 2, 3, 4, 5, 6, 7)
