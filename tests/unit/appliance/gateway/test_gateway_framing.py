"""Requests that somebody before us could understand in another way."""

import pytest

from appliance.gateway.framing import verify_target

HOST = [(b"host", b"gateway.example:8443")]


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/models",
        b"/a?b=http://x/",
        b"*",
        b"https://GATEWAY.example:8443/v1/models",
        b"https://gateway.example:8443?x",
    ],
)
def test_targets_that_mean_one_thing(target):
    """RFC 9112 section 3.2."""
    verify_target(target, HOST)


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/models#x",
        b"https://other.example/v1/models",
        b"http://gateway.example/v1/models",
        b"https://x@gateway.example:8443/",
    ],
)
def test_targets_that_mean_two_are_refused(target):
    """A proxy goes by the target's host, or by Host."""
    with pytest.raises(ValueError, match="target"):
        verify_target(target, HOST)
