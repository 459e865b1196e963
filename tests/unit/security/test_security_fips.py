"""`fips = true`: refused unless every module says that it is in approved mode; the approved case by stand-ins, named as such."""

from pathlib import Path

import pytest

from appliance.config import parse_configuration
from appliance.config.defaults import DEMO_MODEL_DIR
from appliance.supervisor.provision import provision
from security.errors import FipsUnavailable
from security.fips import CryptoModule, find_modules, verify_fips
from tests.support.controls import control

STAND_IN = CryptoModule("a stand-in, no real module", "0", True)
"""No FIPS module can be had for this test: this only shows what is done with one that says yes."""
NOT_APPROVED = CryptoModule("another stand-in", "0", False)


def test_both_modules_of_a_process_are_found() -> None:
    """Python's own OpenSSL, and the one that comes with the wheel."""
    names = [module.name for module in find_modules()]
    assert names == ["Python's ssl and hashlib", "cryptography"]
    assert all(module.version.startswith("OpenSSL") for module in find_modules())


@control("3.13.11", "IA-7", "SC-13")
@pytest.mark.skipif(all(module.is_approved for module in find_modules()), reason="this system is in FIPS-approved mode")
def test_start_is_refused_with_the_wheels_of_the_index(tmp_path: Path) -> None:
    """Before anything is made; the message says which module, and that it is not approved."""
    text = f'fips = true\nstate_dir = "{tmp_path}/state"\n[[engines]]\nmodel_path = "{DEMO_MODEL_DIR}"\n'
    with pytest.raises(FipsUnavailable, match=r"fips: .*not in approved mode"):
        provision(parse_configuration(text.encode(), tmp_path))
    assert not (tmp_path / "state" / "tls").exists()


@control("3.13.11", "IA-7", "SC-13")
def test_every_module_must_be_approved() -> None:
    """One is not enough; each that is missing is a line."""
    verify_fips((STAND_IN, STAND_IN), signing_algorithm="ES256")
    for modules in ((STAND_IN, NOT_APPROVED), (NOT_APPROVED, STAND_IN), (NOT_APPROVED, NOT_APPROVED)):
        with pytest.raises(FipsUnavailable) as refused:
            verify_fips(modules, signing_algorithm="ES256")
        assert len(str(refused.value).splitlines()) == modules.count(NOT_APPROVED)


def test_algorithm_outside_the_list_is_refused() -> None:
    """Even where the modules are approved."""
    with pytest.raises(FipsUnavailable, match="Ed25519 is not on the list: expected ES256"):
        verify_fips((STAND_IN,), signing_algorithm="Ed25519")
