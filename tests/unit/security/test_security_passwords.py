"""What a stored password costs whoever wants to guess it."""

import pytest

from security import passwords
from security.passwords import MEMORY_KIB, hash_password, is_password
from tests.support.controls import control


@control("3.5.10", "IA-5(6)")
def test_a_password_is_stored_at_the_cost_that_is_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    """OWASP's second choice for argon2id: 19 MiB, two passes, one lane; never the same twice."""
    monkeypatch.setattr(passwords, "MEMORY_KIB", MEMORY_KIB)  # As imported, before the fixture made it quick.
    stored = hash_password("correct horse 4 Battery")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert hash_password("correct horse 4 Battery") != stored
    assert is_password(stored, "correct horse 4 Battery")
    assert not is_password(stored, "correct horse 4 battery")
