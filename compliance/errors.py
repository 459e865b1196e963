"""The errors that leave `compliance`, split by what the caller does next.

ComplianceFault
├── ComplianceRejected         untrusted input was refused
│   ├── ResultsRejected        a file that is not the results of tests
│   ├── StatementsRejected     the customer's statements are malformed, or are about what does not exist
│   ├── PackRejected           an evidence pack that is not whole, not signed, or not what its manifest says
│   └── PeriodRejected         a time that is none, or in which the log has no record
└── ComplianceMisconfigured    nothing can be said
    └── CatalogueRejected      the controls that lie beside this module claim what they may not, or are not well formed
"""


class ComplianceFault(Exception):
    """Whatever `compliance` refuses. Messages name the thing, what was expected and what came."""


class ComplianceRejected(ComplianceFault):
    """Untrusted input was refused."""


class ResultsRejected(ComplianceRejected):
    """A file of test results in another form."""


class StatementsRejected(ComplianceRejected):
    """The customer's statements; the message names the control."""


class PackRejected(ComplianceRejected):
    """An evidence pack that does not hold."""


class PeriodRejected(ComplianceRejected):
    """A period without a record, or no period."""


class ComplianceMisconfigured(ComplianceFault):
    """What belongs to the product itself is not as it must be."""


class CatalogueRejected(ComplianceMisconfigured):
    """A catalogue of controls; the message names file and control."""
