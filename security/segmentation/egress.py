"""The self-test: addresses that must not answer are tried, and one that does is a hole.

It opens a TCP connection and sends nothing. Refused, unreachable and silent are all good; only a connection that comes about
is bad.
"""

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from security.segmentation.model import parse_endpoint
from security.segmentation.settings import SegmentsSettings

_MAX_THREADS = 16


@dataclass(frozen=True, slots=True)
class EgressTest:
    """What came of one self-test."""

    num_tried: int
    answered: tuple[str, ...]
    """Addresses that took a connection, though nothing may leave to them."""


def probe_egress(settings: SegmentsSettings) -> EgressTest:
    """Try every probe. Raises: SegmentsUnusable for what is no address."""
    for text in settings.probes:
        parse_endpoint(text, "probes")
    with ThreadPoolExecutor(max_workers=_MAX_THREADS) as pool:
        answers = list(pool.map(lambda text: answers_at(text, settings.probe_timeout_s), settings.probes))
    answered = tuple(text for text, came in zip(settings.probes, answers, strict=True) if came)
    return EgressTest(len(settings.probes), answered)


def answers_at(endpoint: str, timeout_s: float) -> bool:
    """Whether a TCP connection to an address comes about."""
    network, port = parse_endpoint(endpoint, "probes")
    try:
        with socket.create_connection((str(network.network_address), port), timeout=timeout_s):
            return True
    except OSError:
        return False
