"""The errors that leave `security`, split by what the caller does next.

SecurityFault
├── SecurityMisconfigured      the operator must change something: refuse to start
│   ├── KeyUnusable            a key or certificate that is missing, exposed, malformed, expired or does not match
│   ├── TrustUnusable          a role file or a root of trust that is missing, malformed, expired or not rightly signed
│   ├── FipsUnavailable        fips = true, and cryptography in use that is not in an approved mode
│   ├── SegmentsUnusable       zones that are no networks, or rules that this system does not take
│   ├── UsersNotLent           a process that was to be given users of its own, and was not
│   └── RegistryUnusable       the definitions cannot be opened, are of another version, or a migration failed
├── TokenRejected              an access token that is not accepted: answer 401
├── SecurityUnavailable        try again later
│   ├── KeysUnavailable        the issuer's keys cannot be had now: answer 503
│   ├── TpmUnavailable         no TPM, one that we may not use, or one that says no
│   ├── BundleUnreadable       a medium that fails, a disk that is full: the next try goes on
│   └── SwitchFailed           a release that did not become ready, or a service that did not obey
├── ModelRejected              a model that is not loaded: tell the steward
│   ├── ModelSignatureRejected a signature that is malformed, wrong, or by somebody who is not trusted
│   ├── ModelFolderRejected    files that are not those signed, that no signature can cover, or that may not be imported
│   └── ModelNotApproved       a good model without the approvals of two stewards, or one that was retired
├── EvidenceRejected           an SBOM, VEX, provenance or feed of advisories that is refused: do not use the release
├── QuoteRejected              a TPM's quote that does not show what it is said to: do not rely on the host
├── BundleRejected             a bundle that is not installed, or a switch that is not allowed: tell the operator
├── MalformedDocument          untrusted JSON, a key set or a form that is refused
└── ClientRejected             a client's definition, or the name of one, that is refused: tell the administrator
"""


class SecurityFault(Exception):
    """Whatever `security` refuses. Messages name the thing, what was expected and what came, and hold no secret."""


class SecurityMisconfigured(SecurityFault):
    """Files or settings with which nothing may start."""


class KeyUnusable(SecurityMisconfigured):
    """A key or certificate file; the message names it."""


class TrustUnusable(SecurityMisconfigured):
    """A role file or a root of trust; the message names it."""


class FipsUnavailable(SecurityMisconfigured):
    """Cryptography that is not in its FIPS-approved mode. One problem a line."""


class SegmentsUnusable(SecurityMisconfigured):
    """The zones of the network, or the rules made of them; the message names the key or the command."""


class UsersNotLent(SecurityMisconfigured):
    """A process between two sets of users; the message names who did not lend."""


class RegistryUnusable(SecurityMisconfigured):
    """The database of definitions; the message names it."""


class TokenRejected(SecurityFault):
    """An access token is not accepted. The message may go to the client: it tells what, never what was expected of a secret."""


class SecurityUnavailable(SecurityFault):
    """Something needed to decide is away; deciding without it would be failing open."""


class KeysUnavailable(SecurityUnavailable):
    """The issuer's public keys could not be fetched, or are too old to be trusted."""


class TpmUnavailable(SecurityUnavailable):
    """There is no TPM that quotes; the message says why."""


class BundleUnreadable(SecurityUnavailable):
    """A bundle that could not be copied; what was copied is kept, and nothing that runs was touched."""


class SwitchFailed(SecurityUnavailable):
    """A switch to another release that was taken back."""


class EvidenceRejected(SecurityFault):
    """What is said about a release, and does not hold. One problem a line."""


class QuoteRejected(SecurityFault):
    """A quote that is malformed, by another TPM, or over something else."""


class BundleRejected(SecurityFault):
    """A bundle, or a step between releases, that is refused. One problem a line."""


class MalformedDocument(SecurityFault):
    """Untrusted bytes that are not the document they should be."""


class ClientRejected(SecurityFault):
    """A client that cannot be created, found or changed as asked."""


class ModelRejected(SecurityFault):
    """A model that must not be loaded or signed. One problem a line; each names the file and what differs."""


class ModelSignatureRejected(ModelRejected):
    """A model's signature that is malformed, does not verify, or is by a key or certificate that is not trusted."""


class ModelFolderRejected(ModelRejected):
    """A model folder whose files are not exactly those signed, or that holds what cannot be signed."""


class ModelNotApproved(ModelRejected):
    """A model that the stewards have not approved, or have retired. The message says who is missing."""
