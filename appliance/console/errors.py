"""What the console's own clients raise.

ConsoleFault
├── SignInFailed   the authority's answer is not one to this sign-in, or the person or the authority said no
├── SessionOver    the authority gives no more tokens: the person signs in again
└── Declined       the API understood and refuses: its words are for the person
"""

from appliance.errors import ApplianceFault


class ConsoleFault(ApplianceFault):
    """Whatever the console cannot do for a person."""


class SignInFailed(ConsoleFault):
    """No session comes of it."""


class SessionOver(ConsoleFault):
    """Tokens are not to be had any more."""


class Declined(ConsoleFault):
    """What the API said."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
