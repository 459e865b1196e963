"""The operator's log: one JSON object a line on standard error, the same keys from every process. Not the audit log.

No secret and no prompt is ever passed to it; the Authorization header is not read by anything that logs. Of an exception it shows
the kinds and the frames and no message, as a message may be made of what a client sent.
"""

import json
import logging
import os
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

_MAX_CAUSES = 8
_MAX_FRAMES = 16
_MAX_LIBRARY_CHARS = 200


def configure_logging(process: str) -> None:
    """Set up structlog for this process; libraries that use the standard `logging` are heard from warnings up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LibraryFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            frames_only,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process, pid=os.getpid())


class LibraryFormatter(logging.Formatter):
    """What libraries say: the first line of their words without what they fill in, which may be a client's, and frames."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        lines = str(record.msg).splitlines() or [""]
        event = {"level": record.levelname.lower(), "library": record.name, "event": lines[0][:_MAX_LIBRARY_CHARS]}
        return json.dumps(frames_only(None, "", event | {"exc_info": record.exc_info}))


def frames_only(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog: the exception as its kind and frames, then those that it came from."""
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    shown: list[str] = []
    while isinstance(error, BaseException) and len(shown) < _MAX_CAUSES:
        frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
        places = " < ".join(
            f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}" for frame in reversed(frames)
        )
        shown.append(f"{type(error).__name__} at {places}")
        error = error.__cause__ or error.__context__
    if shown:
        event["exception"] = shown
    return event
