"""The operator's log: one JSON object a line on standard error, the same keys from every process. Not the audit log.

No secret and no prompt is ever passed to it; the Authorization header is not read by anything that logs.
"""

import logging
import os
import sys

import structlog


def configure_logging(process: str) -> None:
    """Set up structlog for this process; libraries that use the standard `logging` are heard from warnings up."""
    logging.basicConfig(
        level=logging.WARNING,
        stream=sys.stderr,
        format='{"level":"%(levelname)s","library":"%(name)s","event":"%(message)s"}',
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process, pid=os.getpid())
