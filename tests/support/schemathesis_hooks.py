"""What Schemathesis cannot guess of an installation: the name of the served model. In half of its requests it stands in."""

from typing import Any

import schemathesis

SERVED = "casemate-demo"
MAX_NAME_CHARS = 256
"""Names that the document forbids stay as they are."""


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Otherwise hardly a request would come as far as a model."""
    name = body.get("model") if isinstance(body, dict) else None
    is_name = isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS
    return body | {"model": SERVED} if is_name and len(name) % 2 else body
