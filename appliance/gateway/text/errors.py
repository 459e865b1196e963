"""What `text` refuses.

ApplianceFault
├── TextRefused              the client's text or messages cannot be used: tell the client
└── StartRefused
    └── ModelFolderRefused   tokenizer or template of a kind we do not load: refuse to start
"""

from appliance.errors import ApplianceFault, StartRefused


class TextRefused(ApplianceFault):
    """Messages or text that cannot be brought into the model's form. The message is for the client."""

    def __init__(self, code: str, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.parameter = parameter


class ModelFolderRefused(StartRefused):
    """Tokenizer files that are missing, malformed or of a kind we do not load."""
