"""The whole configuration: one frozen object, composed of the sections that the packages own.

Objects of the product receive values or their own section, never this whole. What one section cannot know of another is
checked in `together`.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from appliance.console.settings import ConsoleSettings
from appliance.gateway.settings import GatewaySettings
from appliance.grammars.settings import GrammarSettings
from appliance.supervisor.settings import SupervisorSettings
from appliance.telemetry.settings import TelemetrySettings
from audit.settings import AuditSettings
from compliance.settings import ComplianceSettings
from runtime.settings import EngineSettings
from security.issuer_settings import IssuerSettings, UpstreamSettings
from security.segmentation.settings import SegmentsSettings
from security.settings import (
    AdministrationSettings,
    AuthoritySettings,
    ConfinementSettings,
    ModelsSettings,
    PolicySettings,
    TlsSettings,
)
from security.tpm.settings import TpmSettings

Mode = Literal["development", "production"]


class Configuration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys above the first section."""

    mode: Annotated[
        Mode,
        Meta(
            description="`production` refuses to start while a protection is missing that is not waived by name; "
            "`development` starts and says what it lacks."
        ),
    ] = "development"
    waivers: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...],
        Meta(
            max_length=32,
            description="Protections that production goes without, by name. `casemate config check` names those that are missing.",
        ),
    ] = ()
    fips: Annotated[
        bool,
        Meta(
            description="Refuse to start unless every cryptographic module in use reports its FIPS-approved mode. "
            "The wheels of the package index cannot: see docs/operations.md."
        ),
    ] = False
    state_dir: Annotated[
        str, Meta(min_length=1, max_length=4096, description="Folder of all that is written: keys, clients, the log.")
    ] = "state"
    gateway: GatewaySettings = GatewaySettings()
    authority: AuthoritySettings = AuthoritySettings()
    policy: PolicySettings = PolicySettings()
    administration: AdministrationSettings = AdministrationSettings()
    console: ConsoleSettings = ConsoleSettings()
    tls: TlsSettings = TlsSettings()
    confinement: ConfinementSettings = ConfinementSettings()
    grammar: GrammarSettings = GrammarSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    audit: AuditSettings = AuditSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    models: ModelsSettings = ModelsSettings()
    segments: SegmentsSettings = SegmentsSettings()
    tpm: TpmSettings = TpmSettings()
    compliance: ComplianceSettings = ComplianceSettings()
    issuers: Annotated[tuple[IssuerSettings, ...], Meta(max_length=16)] = ()
    upstream: UpstreamSettings | None = None
    engines: Annotated[tuple[EngineSettings, ...], Meta(min_length=1, max_length=64)]

    @property
    def state_path(self) -> Path:
        """`state_dir` as an absolute path."""
        return Path(self.state_dir)


def model_paths_of(engine: EngineSettings) -> tuple[Path, ...]:
    """The folders that an engine reads models from: the model's, and its draft head's unless that lies in it."""
    model, head = Path(engine.model_path), engine.speculative_draft_model_path
    if not head or Path(os.path.abspath(head)).is_relative_to(os.path.abspath(model)):
        return (model,)
    return (model, Path(head))


def served_name_of(engine: EngineSettings) -> str:
    """What clients call an engine's model."""
    return engine.served_model_name or Path(engine.model_path).name
