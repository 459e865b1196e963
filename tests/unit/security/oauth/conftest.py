"""The house of `tests.support.oauth_house`, and a client's key."""

import pytest
from joserfc.jwk import ECKey

from tests.support.oauth_house import House


@pytest.fixture
def house(tmp_path, clock, issuer):
    made = House(tmp_path, clock, issuer.keys)
    yield made
    made.close()


@pytest.fixture
def key():
    return ECKey.generate_key("P-256")
