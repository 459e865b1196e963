"""A folder against its signature: exactly the files that were signed, with exactly the bytes (OMS section 8.4).

(1) the signature, (2) the names, both ways, (3) the digests of all files. After (3) the folder *was* as signed: whoever loads
a file later checks the bytes that it reads with `verify_bytes`. A loader that hashes what it loads anyway can leave out (3):
`verify_signature`, `verify_names`, then `verify_bytes` for every file that is loaded, all of them from memory.

Not tolerated, though the format lets a verifier pass them over: unlisted files, and what the signer left out (`.git` and the
like), since a signature does not cover them. The signature file itself may lie in the folder, under a name with `.sig`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from security.errors import ModelFolderRejected
from security.model_signing.digests import Progress, SecondDigest, hash_files_twice
from security.model_signing.folder import ListedFile, ModelFolder
from security.model_signing.names import DEFAULT_EXCLUSIONS, show_name
from security.model_signing.signing import SIGNATURE_SUFFIX, name_inside
from security.model_signing.trust import SignedBy, SignedModel, Trust, changed, verify_signature

_PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """A folder that was as signed when it was read."""

    signed: SignedModel
    sizes: Mapping[str, int]
    """Bytes of each file by its name, as they were hashed."""
    second: Mapping[str, str]
    """Second digests of the very bytes that were verified, by name."""

    @property
    def digests(self) -> Mapping[str, str]:
        """The digest, in hexadecimal, of each file by its name."""
        return self.signed.digests

    @property
    def root(self) -> str:
        """The digest that stands for the whole model."""
        return self.signed.root

    @property
    def signed_by(self) -> SignedBy:
        """Who signed it."""
        return self.signed.signed_by

    def verify_bytes(self, name: str, digest: str) -> None:
        """Check the digest of the very bytes that a loader read; see `SignedModel.verify_bytes`.

        Raises: ModelFolderRejected.
        """
        self.signed.verify_bytes(name, digest)


def verify_model(
    folder: Path,
    signature: Path,
    trust: Trust,
    *,
    second: SecondDigest | None = None,
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> VerifiedModel:
    """Verify a signature and every file of the folder.

    Args:
        second: a digest more for some files, for the caller.
        num_threads: for hashing; as many as there are cores for us, at most 16, if None.
    Raises: ModelSignatureRejected; ModelFolderRejected, with a line for each file that is changed, missing or not listed.
    """
    signed = verify_signature(signature, trust)  # (1)
    with ModelFolder(folder) as opened:
        files = _verify_names(opened, signature, signed)  # (2)
        found = hash_files_twice(  # (3)
            opened, files, signed.algorithm, second, num_threads=num_threads, progress=progress
        )
    problems = [
        str(changed(name, expected, found.first[name], signed.algorithm))
        for name, expected in signed.digests.items()
        if found.first[name] != expected
    ]
    _refuse(problems)
    return VerifiedModel(signed, {file.name: file.size_bytes for file in files}, found.second)


def verify_names(folder: Path, signature: Path, signed: SignedModel) -> None:
    """Verify that the folder holds the files signed and no others; their content is left to `verify_bytes`.

    Raises: ModelFolderRejected.
    """
    with ModelFolder(folder) as opened:
        _verify_names(opened, signature, signed)


def _verify_names(folder: ModelFolder, signature: Path, signed: SignedModel) -> list[ListedFile]:
    files = {file.name: file for file in folder.list_files()}
    inside = name_inside(folder.path, signature)
    if inside in files and inside not in signed.digests and inside.endswith(SIGNATURE_SUFFIX):
        # The very file that was read, and not another that a rename has put at its name.
        if (files[inside].device, files[inside].inode) != signed.inode:
            raise ModelFolderRejected(f"{show_name(inside)}: exchanged while it was read")
        del files[inside]
    problems = [f"{show_name(name)}: missing" for name in signed.digests if name not in files]
    left_out = (*DEFAULT_EXCLUSIONS, *signed.manifest.ignored)
    for name in files:
        if name not in signed.digests:
            is_excluded = any(f"{name}/".startswith(f"{path}/") for path in left_out)
            problems.append(
                f"{show_name(name)}: {'left out of' if is_excluded else 'not listed in'} the signature; remove it"
            )
    _refuse(problems)
    return list(files.values())


def _refuse(problems: list[str]) -> None:
    if problems:
        more = [f"… and {len(problems) - _PROBLEMS_SHOWN} files more"] if len(problems) > _PROBLEMS_SHOWN else []
        raise ModelFolderRejected("\n".join(problems[:_PROBLEMS_SHOWN] + more))
