"""What is asked of an installation: closed questions about its configuration and state, each with why it matters and what to do.

The answers come from `appliance`, which alone knows the configuration; here is only what each means. A fact that holds shows that a
protection is on, not that it works: that is for tests and records to show.
"""

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that is asked.

    Attributes:
        title: the fact, as a statement that holds or does not.
        missing: what can happen where it does not hold, in a sentence.
        remedy: what the operator does about it.
    """

    title: str
    missing: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found.

    Attributes:
        holds: None where it could not be found out.
        words: what was seen.
        is_elsewhere: it cannot be seen from here, as it is a matter of something of the customer's; their statement tells it.
    """

    holds: bool | None
    words: str
    is_elsewhere: bool = False


QUESTIONS = MappingProxyType(
    {
        "production_mode": Question(
            "the appliance runs in production mode",
            "Development mode starts without protections that production insists on.",
            'Set mode = "production".',
        ),
        "no_waivers": Question(
            "no protection is waived",
            "A protection that production insists on is accepted as missing, by name.",
            "Remove it from waivers, once what it names is there.",
        ),
        "confinement": Question(
            "every process is confined to its role",
            "A captured process can reach files or networks of the others.",
            "Set confinement.enabled = true, on a system that offers all of it (docs/confinement.md).",
        ),
        "own_users": Question(
            "every process runs as a user of its own",
            "File permissions do not keep a captured process from the files of the others; its confinement alone does.",
            "Lend the supervisor users (deploy/systemd/casemate-users.service), or start it as root; set confinement.first_uid.",
        ),
        "signed_models": Question(
            "every model comes from the store, signed and approved by two people",
            "Whoever can write to a model's folder can change the answers.",
            "Import the model, have it approved and promoted, and name its place in the store.",
        ),
        "frozen_kernels": Question(
            "engines on a GPU take kernels from a frozen bundle",
            "Kernels are compiled on this machine: what computes is not pinned.",
            "Build a bundle, and set engines.frozen and engines.kernels_sha256.",
        ),
        "two_person_grants": Question(
            "privileged roles need two people",
            "One person alone can make an administrator, an operator, a steward or an auditor.",
            "Set policy.two_person_grants = true.",
        ),
        "privileged_by_two": Question(
            "two people decided on every privileged account that can be used",
            "One person's word made somebody an administrator, an operator, a steward or an auditor, while two were not asked for.",
            "Set policy.two_person_grants = true, and have a second person agree to each: casemate role approve ID ROLE.",
        ),
        "witness": Question(
            "a witness under another administrator cosigns the log",
            "Whoever holds this host can replace the log by an older state or another history unnoticed.",
            "Run casemate audit witness elsewhere, and name its key in audit.witnesses.",
        ),
        "own_certificates": Question(
            "the server's certificate comes from an authority of the organization",
            "The key of the authority that made the certificate lies on this host.",
            "Name tls.certificate and tls.key.",
        ),
        "fips_modules": Question(
            "fips is set, and every cryptographic module reports its approved mode",
            "What encrypts is not a validated module, so no encryption counts as validated.",
            "Build against a validated module and set fips = true; keep the certificate numbers.",
        ),
        "tls_1_3": Question(
            "TLS 1.3 is the oldest version accepted",
            "Clients may speak an older TLS.",
            'Set tls.minimum_version = "1.3".',
        ),
        "database_tls": Question(
            "the definitions lie on this host, or their server is verified under TLS",
            "Who may do what, and the hashes of secrets, can be read and changed on their way.",
            "Add sslmode=verify-full and sslrootcert to policy.database_url.",
        ),
        "banner": Question(
            "a notice is shown before each sign-in",
            "People are not told on which terms they sign in.",
            "Write authority.banner.",
        ),
        "local_sign_in": Question(
            "people sign in at this appliance only, by its rules",
            "Rules on lockout, passwords, factors and sessions that hold here do not hold for those who sign in elsewhere.",
            "Keep to the same rules at the provider.",
        ),
        "lockout": Question(
            "at most five failed sign-ins in a row, then at least a quarter of an hour of lockout",
            "Passwords can be guessed for longer than is usual.",
            "Set authority.max_sign_in_failures to 5 or less and authority.lockout_s to 900 or more.",
        ),
        "idle_sessions": Question(
            "pages ask to sign in again after at most fifteen minutes without a click",
            "An unattended browser stays signed in.",
            "Set authority.page_idle_s, and console.idle_s where the console is enabled, to 900 or less.",
        ),
        "session_lifetime": Question(
            "a session lasts at most half a day",
            "A stolen session is of use for long.",
            "Set authority.session_lifetime_s, and console.session_lifetime_s where the console is enabled, to 43200 or less.",
        ),
        "concurrency_bounded": Question(
            "how many requests of a client may run at once is bounded",
            "One client can take all that the appliance can serve.",
            "Set policy.max_concurrent_requests_per_client to a number above 0.",
        ),
        "token_key_rotates": Question(
            "the key that signs tokens is replaced at least each year",
            "Whoever has copied that key makes tokens for as long as nobody replaces it by hand.",
            "Set authority.signing_key_lifetime_days to a number from 1 to 366.",
        ),
        "inactive_accounts": Question(
            "accounts that were not used for at most ninety days must be enabled again",
            "Forgotten accounts stay open.",
            "Set authority.inactive_after_days to a number from 1 to 90.",
        ),
        "privileged_mfa": Question(
            "every enabled person with a privileged role has a second factor",
            "A password alone opens a privileged account.",
            "Make people with a second factor (casemate user create LOGIN), and reset who has none: casemate user reset LOGIN.",
        ),
        "all_mfa": Question(
            "every enabled person has a second factor",
            "A password alone opens an account.",
            "Make people with a second factor (casemate user create LOGIN), and reset who has none: casemate user reset LOGIN.",
        ),
        "no_static_keys": Question(
            "no static key can be used",
            "Whoever has copied a static key is its client, from its networks, until it ends.",
            "Move the client to tokens and revoke its keys: casemate key revoke ID.",
        ),
        "auditor_exists": Question(
            "there is an enabled account of the role auditor",
            "Nobody but people on the host can read the records.",
            "Make one: casemate user create LOGIN --role auditor, and have it approved.",
        ),
        "segments": Question(
            "zones of the network are declared",
            "No rules for the packet filter can be made: whatever reaches the host reaches its ports.",
            "Declare [segments], and apply casemate segments render.",
        ),
        "egress_probes": Question(
            "the self-test has addresses to try",
            "Nobody tries whether something can leave this host.",
            "Name segments.probes.",
        ),
        "space_warning": Question(
            "the operator is warned before the log's disk is full",
            "A full disk comes without notice, and no request is answered until there is space.",
            "Set audit.space_warning_bytes to the share of the disk that you define; the default is 1 GiB.",
        ),
        "records_present": Question(
            "the log has records in this period, and they verify",
            "Nothing shows what was done.",
            "Start the appliance; for a pack, name a period in which it ran.",
        ),
        "records_retained": Question(
            "every record of the time that you must keep (compliance.retention_days) is at hand",
            "Records that must be kept cannot be shown.",
            "Put the log that was closed back beside the one that continues it (docs/audit.md), and keep it.",
        ),
        "retention_half_year": Question(
            "records are to be kept for six months at least",
            "Records are let go before the time that the AI Act asks for.",
            "Set compliance.retention_days to 184 or more.",
        ),
        "statement": Question(
            "the last start measured what runs",
            "Nothing says which software, model and configuration gave the answers.",
            "Start the appliance: every start measures.",
        ),
    }
)
"""All questions, by the names that controls use."""

UNKNOWN = Answer(None, "was not looked at")
