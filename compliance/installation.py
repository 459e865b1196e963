"""What is told of an installation, as plain values: `appliance` fills it in, the pack's documents are made of it. No secret
is in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compliance.facts import Answer


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may sign in."""

    user_id: str
    login: str
    name: str
    role: str
    tenant: str
    state: str
    """`enabled`, `disabled`, or `waits for a second person`."""
    second_factor: str
    granted_by: str
    approved_by: str
    created_at: str


@dataclass(frozen=True, slots=True)
class Program:
    """A client."""

    client_id: str
    name: str
    kind: str
    role: str
    tenant: str
    state: str
    authentication: str
    scopes: str
    granted_by: str
    approved_by: str
    created_at: str


@dataclass(frozen=True, slots=True)
class HeldRole:
    """A role: what it may do, and how many have it."""

    role: str
    is_privileged: str
    """`yes` or `no`: whether it is one to which two people agree, where the installation asks for two."""
    needs_two: str
    """`yes` or `no`: whether two must agree on this installation."""
    scopes: str
    models: str
    people: int
    programs: int


@dataclass(frozen=True, slots=True)
class UsableKey:
    """A static key, without itself."""

    key_id: str
    client_id: str
    name: str
    networks: str
    state: str
    created_at: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key or certificate on the host, without itself."""

    file: str
    purpose: str
    holder: str
    """The process that holds it."""
    algorithm: str
    identifier: str
    """SHA-256 of the public half, or a key's own id; empty for secrets."""
    mode: str
    changed_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """All of it."""

    version: str
    software: str
    """Digest of the software that makes the pack: what test results must name."""
    mode: str
    configuration: bytes
    """The effective configuration as JSON, secrets hidden."""
    configuration_digest: str
    """SHA-256 of the file's own bytes."""
    statement: bytes
    """The running statement; empty where the appliance was never started."""
    cosigned: bytes
    """The witnesses' last word, as it lies beside the log; empty where there is none."""
    sbom: bytes
    retention_days: int
    """How long records must be kept."""
    answers: Mapping[str, Answer]
    people: Sequence[Person]
    programs: Sequence[Program]
    roles: Sequence[HeldRole]
    static_keys: Sequence[UsableKey]
    keys: Sequence[HeldKey]
