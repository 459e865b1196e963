"""Digests of pieces in any order: those of the file, from any threads, each piece free as soon as it was hashed."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from runtime.weights.ordered_digest import OrderedDigest


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=12), st.randoms(use_true_random=False))
def test_any_order_gives_the_digest_of_the_file(pieces: list[bytes], random: object) -> None:
    """A piece is given up when all before it have come, and not before."""
    whole = b"".join(pieces)
    starts = [sum(map(len, pieces[:index])) for index in range(len(pieces))]
    order = list(range(len(pieces)))
    random.shuffle(order)  # type: ignore[attr-defined]
    digest = OrderedDigest(hashlib.sha256())
    given_up: list[int] = []
    for count, index in enumerate(order, start=1):
        digest.add(starts[index], memoryview(pieces[index]), lambda index=index: given_up.append(index))
        come = set(order[:count])
        ready = next((first for first in range(len(pieces)) if first not in come), len(pieces))
        assert given_up == list(range(ready))
    assert digest.hexdigest() == hashlib.sha256(whole).hexdigest()


def test_threads_at_once_give_the_digest_of_the_file() -> None:
    """Eight threads bring a thousand pieces; none is lost, and no two are hashed at a time."""
    content = bytes(range(256)) * 125
    digest = OrderedDigest(hashlib.sha256())
    with ThreadPoolExecutor(8) as pool:
        for start in range(0, len(content), 32):
            pool.submit(digest.add, start, memoryview(content)[start : start + 32], lambda: None)
    assert digest.hexdigest() == hashlib.sha256(content).hexdigest()


def test_nobody_waits_for_a_thread_that_hashes() -> None:
    """A piece that comes meanwhile is left to that thread."""
    hashing, go_on = threading.Event(), threading.Event()

    class Slow:
        def __init__(self) -> None:
            self.content = b""

        def update(self, data: bytes | memoryview, /) -> None:
            hashing.set()
            assert go_on.wait(30)
            self.content += bytes(data)

        def hexdigest(self) -> str:
            return self.content.hex()

    digest = OrderedDigest(Slow())
    hashed_by: list[int] = []
    first = threading.Thread(target=lambda: digest.add(0, memoryview(b"a"), lambda: None))
    first.start()
    assert hashing.wait(30)
    digest.add(1, memoryview(b"b"), lambda: hashed_by.append(threading.get_ident()))
    assert not hashed_by
    go_on.set()
    first.join()
    assert hashed_by == [first.ident]
    assert digest.hexdigest() == b"ab".hex()
