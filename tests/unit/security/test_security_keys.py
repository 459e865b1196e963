"""Key files: made private and whole, loaded only if they are; each refusal names the file and holds no secret."""

import multiprocessing
import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from security.errors import KeyUnusable
from security.keys import (
    MAX_KEY_FILE_BYTES,
    encode_private_key,
    generate_ed25519,
    generate_p256,
    load_or_create_private_key,
    load_or_create_secret,
    load_private_key,
    write_exclusive,
    write_replacing,
)
from tests.support.controls import control


@pytest.mark.parametrize("generate", [generate_ed25519, generate_p256])
def test_a_key_survives_the_file(tmp_path, generate):
    """Both kinds, mode 0600 whatever the umask."""
    path = tmp_path / "key.pem"
    old = os.umask(0)
    try:
        made = load_or_create_private_key(path, generate)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert encode_private_key(load_or_create_private_key(path, generate)) == encode_private_key(made)
    assert list(tmp_path.iterdir()) == [path]


@control("3.13.10", "SC-12")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o700 | 0o001])
def test_an_exposed_key_is_refused(tmp_path, mode):
    """Readable, writable or executable by anybody else."""
    path = tmp_path / "exposed.pem"
    write_exclusive(path, encode_private_key(generate_p256()))
    path.chmod(mode)
    with pytest.raises(KeyUnusable, match=r"exposed\.pem is open to others"):
        load_private_key(path)


def test_what_is_not_a_key_is_refused_by_name(tmp_path):
    """Missing, empty, garbage, truncated, encrypted, of another kind, too large, a folder, a pipe."""
    good = encode_private_key(generate_p256())
    encrypted = generate_p256().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    other = generate_private_key(SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    contents = {
        "empty": b"",
        "garbage": b"\x00\xff" * 50,
        "truncated": good[: len(good) // 2],
        "encrypted": encrypted,
        "other": other,
        "large": good + b"\n" * MAX_KEY_FILE_BYTES,
    }
    for name, content in contents.items():
        write_exclusive(tmp_path / name, content)
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in (*contents, "folder", "pipe", "missing"):
        with pytest.raises(KeyUnusable, match=name) as caught:
            load_private_key(tmp_path / name)
        assert "PRIVATE" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_key_is_named(tmp_path):
    """By its path."""
    path = tmp_path / "unreadable.pem"
    write_exclusive(path, b"x", mode=0o000)
    with pytest.raises(KeyUnusable, match="unreadable"):
        load_private_key(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_somebody_elses_key_is_refused(tmp_path):
    """They could change it."""
    path = tmp_path / "theirs.pem"
    write_exclusive(path, encode_private_key(generate_p256()))
    os.chown(path, 12345, 12345)
    with pytest.raises(KeyUnusable, match="belongs to uid 12345"):
        load_private_key(path)


def test_nothing_is_overwritten_by_accident(tmp_path):
    """Exclusive means exclusive; replacing replaces whole files."""
    path = tmp_path / "key"
    write_exclusive(path, b"one")
    with pytest.raises(FileExistsError):
        write_exclusive(path, b"two")
    assert path.read_bytes() == b"one"
    write_replacing(path, b"two", mode=0o644)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"two", 0o644)
    with pytest.raises(KeyUnusable, match="missing"):
        write_exclusive(tmp_path / "missing" / "key", b"x")
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_of_another_length_is_refused(tmp_path):
    """A truncated copy must not become a weak key."""
    path = tmp_path / "secret.key"
    assert load_or_create_secret(path) == load_or_create_secret(path) == path.read_bytes()
    write_replacing(path, b"short")
    with pytest.raises(KeyUnusable, match=r"secret\.key holds 5 bytes"):
        load_or_create_secret(path)


def _make(path, results):
    results.put(load_or_create_secret(path))


def test_processes_that_start_together_agree_on_one_key(tmp_path):
    """Of several makers one wins, for all."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    workers = [context.Process(target=_make, args=(tmp_path / "secret.key", results)) for _ in range(6)]
    for worker in workers:
        worker.start()
    secrets = {results.get() for _ in workers}
    for worker in workers:
        worker.join(200)
    assert secrets == {(tmp_path / "secret.key").read_bytes()}
