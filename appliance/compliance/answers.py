"""The facts that controls ask for, as far as configuration, definitions and state tell them.

A configuration is in force when the appliance was started by it. What a file says that was changed since then is not known to hold.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from appliance.compliance.witnesses import answer_witness
from appliance.config import Configuration, what_is_lacking
from compliance.facts import Answer
from security.database_server import find_database_servers
from security.fips import find_modules
from security.policy.definitions import Definitions, name_accounts_by_one
from security.scopes import PRIVILEGED_ROLES, Role
from security.users import User

_NOT_RECORDED = "what lies here as the statement of the last start is not what that start recorded in the log"
_PROTECTIONS = ("confinement", "signed_models", "two_person_grants", "frozen_kernels", "own_certificates")
_QUARTER_HOUR_S, _HALF_DAY_S = 900, 43_200
_SIX_MONTHS_DAYS = 184
"""The longest that six months are, as from July to December."""


def answer_all(
    configuration: Configuration,
    definitions: Definitions | None,
    software: str,
    now: float,
    cosigned: bytes,
    *,
    digest: str | None = None,
    recorded: str | None = None,
) -> dict[str, Answer]:
    """Every fact that can be told without reading all of the log.

    Args:
        definitions: None where there are none, or where they could not be read.
        software: digest of what makes the answers, to be compared with what was started last.
        now: UTC, seconds since the epoch.
        cosigned: the witnesses' word; empty where none came.
        digest: of the configuration's file, to be compared likewise; None where it came from no file.
        recorded: digest of the statement that the last start recorded, by the log; None where that was not found out.
    """
    found = dict(_answer_protections(configuration))
    found |= dict(_answer_settings(configuration))
    found["witness"] = answer_witness(configuration, now, cosigned)
    path = configuration.state_path / "run" / "statement.json"
    statement = _load_statement(path)
    if isinstance(statement, dict) and recorded is not None and recorded != f"sha256:{_digest_file(path)}":
        why = _NOT_RECORDED
    elif isinstance(statement, dict) and digest is not None and statement.get("configuration") != digest:
        why = "the last start was by another configuration"
    else:
        why = ""
    if why:
        found = {name: _doubt(answer, why) for name, answer in found.items()}
    found |= dict(_answer_definitions(configuration, definitions, now))
    found["statement"] = Answer(False, why) if why == _NOT_RECORDED else _answer_statement(statement, software, digest)
    return found


def _doubt(answer: Answer, why: str) -> Answer:
    return replace(answer, holds=None, words=f"{answer.words}; but {why}", is_elsewhere=False)


def _digest_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _answer_protections(configuration: Configuration) -> Iterator[tuple[str, Answer]]:
    lacking = {lack.name: lack.consequence for lack in what_is_lacking(configuration)}
    for name in _PROTECTIONS:
        words = _word_lack(name, lacking.get(name))
        if name == "frozen_kernels" and all(engine.device != "cuda" for engine in configuration.engines):
            words = "no engine runs on a GPU"
        yield name, Answer(name not in lacking, words)
    yield (
        "own_users",
        Answer(
            "single_user" not in lacking,
            "all processes run as one user" if "single_user" in lacking else "each role has its own",
        ),
    )
    yield "production_mode", _tell(configuration.mode == "production", "mode", configuration.mode)
    waivers = ", ".join(configuration.waivers)
    yield "no_waivers", Answer(not waivers, f"waived: {waivers}" if waivers else "none is waived")


def _word_lack(name: str, consequence: str | None) -> str:
    """What the configuration says about it beyond what the question says already: which engines, which step."""
    if consequence is None:
        return "in place"
    detail = consequence.rpartition(": ")[2] if name in ("signed_models", "frozen_kernels") else ""
    if name == "confinement":
        detail = consequence.partition(". ")[0]
    return f"lacking: {detail.rstrip('.')}" if detail else f"lacking: {name}"


def _answer_settings(configuration: Configuration) -> Iterator[tuple[str, Answer]]:
    authority, segments = configuration.authority, configuration.segments
    yield (
        "tls_1_3",
        _tell(configuration.tls.minimum_version == "1.3", "tls.minimum_version", configuration.tls.minimum_version),
    )
    yield "local_sign_in", _answer_sign_in(configuration)
    yield "database_tls", _answer_database(configuration.policy.database_url)
    yield (
        "banner",
        Answer(
            bool(authority.banner), "authority.banner is set" if authority.banner else "authority.banner is not set"
        ),
    )
    yield (
        "lockout",
        Answer(
            authority.max_sign_in_failures <= 5 and authority.lockout_s >= 900,
            f"{authority.max_sign_in_failures} failures, then {authority.lockout_s} s",
        ),
    )
    yield "idle_sessions", _answer_idle_sessions(configuration)
    yield "session_lifetime", _answer_lifetimes(configuration)
    bound = configuration.policy.max_concurrent_requests_per_client
    yield "concurrency_bounded", _tell(bound > 0, "policy.max_concurrent_requests_per_client", bound)
    days = authority.signing_key_lifetime_days
    yield "token_key_rotates", _tell(1 <= days <= 366, "authority.signing_key_lifetime_days", days)
    days = authority.inactive_after_days
    yield "inactive_accounts", _tell(1 <= days <= 90, "authority.inactive_after_days", days)
    zones = len(segments.clients) + len(segments.admin) + len(segments.telemetry) + len(segments.witnesses)
    yield "segments", Answer(bool(segments.clients), f"{zones} networks and addresses are declared")
    yield "egress_probes", Answer(bool(segments.probes), f"{len(segments.probes)} addresses are tried")
    yield "space_warning", _answer_space_warning(configuration)
    kept = configuration.compliance.retention_days
    yield "retention_half_year", _tell(kept >= _SIX_MONTHS_DAYS, "compliance.retention_days", kept)
    modules = [f"{one.name}: {'in' if one.is_approved else 'not in'} approved mode" for one in find_modules()]
    approved = configuration.fips and all(one.is_approved for one in find_modules())
    yield "fips_modules", Answer(approved, f"fips = {str(configuration.fips).lower()}; {'; '.join(modules)}")


def _answer_space_warning(configuration: Configuration) -> Answer:
    """A bound within the reserve warns when the disk is full already."""
    bound, reserve = configuration.audit.space_warning_bytes, configuration.audit.reserve_bytes
    words = f"audit.space_warning_bytes = {bound:,}, and the reserve for the failure itself is {reserve:,}"
    return Answer(bound > reserve, words)


def _answer_idle_sessions(configuration: Configuration) -> Answer:
    """The authority's pages, and the console's where there is one."""
    idle = {"authority.page_idle_s": configuration.authority.page_idle_s}
    if configuration.console.enabled:
        idle["console.idle_s"] = configuration.console.idle_s
    return _tell_longest(idle, _QUARTER_HOUR_S)


def _answer_lifetimes(configuration: Configuration) -> Answer:
    """Likewise."""
    lifetimes = {"authority.session_lifetime_s": configuration.authority.session_lifetime_s}
    if configuration.console.enabled:
        lifetimes["console.session_lifetime_s"] = configuration.console.session_lifetime_s
    return _tell_longest(lifetimes, _HALF_DAY_S)


def _tell_longest(found: dict[str, int], bound_s: int) -> Answer:
    return Answer(max(found.values()) <= bound_s, ", ".join(f"{key} = {value}" for key, value in found.items()))


def _answer_sign_in(configuration: Configuration) -> Answer:
    """Whose rules of signing in are those that count."""
    providers = [issuer.name for issuer in configuration.issuers]
    if configuration.upstream is not None:
        providers.insert(0, configuration.upstream.name)
    if providers:
        words = f"people sign in at {', '.join(providers)}, by rules that cannot be seen from here"
        return Answer(None, words, is_elsewhere=True)
    return Answer(True, "there is no other provider")


def _answer_database(url: str | None) -> Answer:
    """Whether a server is verified; of its URL, which may hold a password, only that is told."""
    if url is None or all(server.is_socket for server in find_database_servers(url)):
        return Answer(True, "the definitions are a file of this host, or behind a socket of it")
    mode = parse_qs(urlsplit(url).query).get("sslmode", ["prefer"])[-1]
    return Answer(mode == "verify-full", f"a database server with sslmode = {mode}")


def _answer_definitions(
    configuration: Configuration, definitions: Definitions | None, now: float
) -> Iterator[tuple[str, Answer]]:
    if definitions is None:
        for name in ("privileged_mfa", "all_mfa", "privileged_by_two", "no_static_keys", "auditor_exists"):
            yield name, Answer(None, "there are no definitions to look at")
        return
    yield "privileged_by_two", _answer_second_person(configuration, definitions)
    people = [user for user in definitions.users.values() if not user.is_disabled]
    elsewhere = bool(configuration.issuers)
    if configuration.upstream is not None:  # Nobody who is defined here can sign in.
        people, elsewhere = [], True
    yield "privileged_mfa", _answer_mfa([user for user in people if user.role in PRIVILEGED_ROLES], elsewhere=elsewhere)
    yield "all_mfa", _answer_mfa(people, elsewhere=elsewhere)
    usable = [key for key in definitions.static_keys.values() if key.revoked_at is None and key.expires_at > now]
    yield "no_static_keys", Answer(not usable, f"{len(usable)} static keys can be used")
    programs = [client for client in definitions.clients.values() if not client.is_disabled]
    auditors = sum(user.role is Role.AUDITOR for user in people) + sum(one.role is Role.AUDITOR for one in programs)
    yield "auditor_exists", _answer_auditors(configuration, auditors)


def _answer_second_person(configuration: Configuration, definitions: Definitions) -> Answer:
    """By the accounts as they are: the rule may have been off when they were made, and is on when nobody looks."""
    privileged = definitions.find_privileged()
    if by_one := name_accounts_by_one(privileged):
        return Answer(False, f"one person alone decided on {', '.join(by_one)}")
    mapping = _find_providers_of(configuration, {role.value for role in PRIVILEGED_ROLES})
    if mapping:
        words = f"to whom {', '.join(mapping)} gives a privileged role cannot be seen from here"
        return Answer(None, words, is_elsewhere=True)
    return Answer(True, f"two people decided on each of {len(privileged)} privileged accounts that can be used")


def _find_providers_of(configuration: Configuration, roles: set[str]) -> list[str]:
    """Providers elsewhere by whose word somebody has one of these roles."""
    providers = [(one.name, {one.default_role, *one.roles.values()}) for one in configuration.issuers]
    if (upstream := configuration.upstream) is not None:
        providers.insert(0, (upstream.name, {upstream.default_role, *upstream.roles.values()}))
    return [name for name, given in providers if roles & given]


def _answer_auditors(configuration: Configuration, here: int) -> Answer:
    """Whether somebody may read the log: an account of this appliance, or whoever a provider says is an auditor."""
    mapping = _find_providers_of(configuration, {"auditor"})
    if here == 0 and mapping:
        words = f"no account here has the role auditor; whether {', '.join(mapping)} gives it to anybody cannot be seen"
        return Answer(None, words, is_elsewhere=True)
    return Answer(here > 0, f"{here} enabled accounts have the role auditor")


def _answer_mfa(people: list[User], *, elsewhere: bool) -> Answer:
    without = sorted(user.login for user in people if not user.has_second_factor)
    if without:
        return Answer(False, f"without a second factor: {', '.join(without)}")
    if elsewhere:
        words = "people of issuers elsewhere sign in there, with factors that cannot be seen from here"
        return Answer(None, words, is_elsewhere=True)
    if not people:
        return Answer(None, "no enabled person is defined here")
    return Answer(True, f"all {len(people)} enabled people have one")


def _load_statement(path: Path) -> object:
    """The statement of the last start; empty where there was none, None where it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError):
        return None


def _answer_statement(statement: object, software: str, digest: str | None) -> Answer:
    if statement == ():
        return Answer(False, "the appliance was never started with this state folder")
    if not isinstance(statement, dict):
        return Answer(None, "the statement of the last start cannot be read")
    if statement.get("software") != software:
        return Answer(False, "the last start measured another software than this one")
    if digest is not None and statement.get("configuration") != digest:
        return Answer(False, "the last start was by another configuration than this one")
    return Answer(True, "the last start measured this very software")


def _tell(holds: bool, key: str, value: object) -> Answer:
    return Answer(holds, f"{key} = {value}")
