"""Signing a model folder: list, hash, state, sign, write (OMS section 6).

(1) What cannot be covered is refused before anything is hashed. (2) All files are hashed, but for the default exclusions at
the top, which are recorded as left out, and which our own loader refuses to find. (3) The statement is signed, (4) statement
and signature are checked as everybody else will check them, and only then (5) written, whole or not at all. An
existing signature is never replaced.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from security.errors import ModelFolderRejected
from security.keys import write_exclusive
from security.model_signing.algorithms import SHA256
from security.model_signing.bundle import Bundle, encode_bundle, encode_pae
from security.model_signing.digests import Progress, SecondDigest, hash_files_twice
from security.model_signing.elliptic import verify_signature_bytes
from security.model_signing.folder import ModelFolder
from security.model_signing.manifest import Manifest, build_manifest
from security.model_signing.names import DEFAULT_EXCLUSIONS, problem_of_name
from security.model_signing.signer import ModelSigner
from security.model_signing.statement import encode_statement, parse_statement

SIGNATURE_SUFFIX = ".sig"
DEFAULT_SIGNATURE_NAME = "model.sig"


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed."""

    manifest: Manifest
    size_bytes: int
    left_out: tuple[str, ...]
    """Names at the top of the folder that are there and not covered: our loader refuses the folder with them."""
    second: Mapping[str, str]
    """Second digests of the very bytes that were signed, by name; no part of the signature."""


def sign_model(
    path: Path,
    signer: ModelSigner,
    output: Path,
    *,
    algorithm: str = SHA256,
    second: SecondDigest | None = None,
    progress: Progress | None = None,
) -> Signed:
    """Sign the folder at `path` and write the signature file.

    Args:
        algorithm: what files are digested with, one of `algorithms.ALGORITHMS`.
        second: a digest more for some files, for the caller.
    Raises: ModelFolderRejected for a folder that cannot be signed, or that changes meanwhile; KeyUnusable if the key cannot
        be used or the file not be written; FileExistsError if `output` exists.
    """
    inside = name_inside(path, output)
    if inside is not None and not inside.endswith(SIGNATURE_SUFFIX):
        raise ModelFolderRejected(
            f"{output}: inside the model folder a signature's name must end with {SIGNATURE_SUFFIX}"
        )
    if not output.parent.is_dir():
        raise ModelFolderRejected(f"{output}: there is no such folder to write the signature to")
    if os.path.lexists(output):
        raise FileExistsError(17, "already exists and is not replaced", str(output))
    with ModelFolder(path) as folder:
        files = folder.list_files(excluded=DEFAULT_EXCLUSIONS)  # (1)
        if not files:
            raise ModelFolderRejected(f"{path}: holds no files to sign")
        digests = hash_files_twice(folder, files, algorithm, second, progress=progress)  # (2)
        left_out = folder.find(DEFAULT_EXCLUSIONS)
    ignored = (*DEFAULT_EXCLUSIONS, *([inside] if inside is not None else []))
    manifest = build_manifest(_model_name(path), digests.first, ignored, algorithm)
    payload = encode_statement(manifest)
    parse_statement(payload)  # (4) It has bounds: thousands of long names are more than a verifier takes.
    signature = signer.sign(encode_pae(payload))  # (3)
    verify_signature_bytes(signer.public_key, signature, encode_pae(payload))  # (4)
    write_exclusive(output, encode_bundle(Bundle(payload, signature, signer.material)), mode=0o644)  # (5)
    return Signed(manifest, sum(file.size_bytes for file in files), left_out, digests.second)


def name_inside(folder: Path, path: Path) -> str | None:
    """The name of a file that lies in the folder, as a manifest would give it; None if it lies elsewhere."""
    try:
        within = Path(os.path.realpath(path)).relative_to(os.path.realpath(folder))
    except ValueError:
        return None
    return within.as_posix()


def _model_name(path: Path) -> str:
    """The folder's own name, for people; it decides nothing."""
    name = path.name if path.name not in ("", "..") else os.path.basename(os.path.realpath(path))
    return name if problem_of_name(name) is None else "model"
