"""Looking a keyed hash up among the records of one tenant and time: who asked, or was answered, a known text.

The hash of one tenant and day equals no other's, so only that day's records can match; they are read one by one, as the index
holds no hashes.
"""

from collections.abc import Iterator

from audit.formats import own_of, parse_json
from audit.index import LogIndex, Query
from audit.keyed_hash import KeyedHash

_PAGE = 10_000
_MEMBERS = (("prompt_hash", "prompt_key_id"), ("answer_hash", "answer_key_id"))


def find_hash(index: LogIndex, query: Query, hashed: KeyedHash) -> Iterator[bytes]:
    """The records that match the query and hold this hash under this key, newest first.

    Raises: IndexUnusable, EntryNotFound, LogCorrupted.
    """
    before: int | None = None
    while page := index.find(query, limit=_PAGE, before=before):
        for entry in index.read(page):
            own = own_of(parse_json(entry))
            if any((own.get(value), own.get(key)) == (hashed.value, hashed.key_id) for value, key in _MEMBERS):
                yield entry
        before = page[-1]
