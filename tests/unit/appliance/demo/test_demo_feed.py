"""The corpus as training gets it: in order, whatever the number of processes."""

from appliance.demo.corpus.example import corpus_hash
from appliance.demo.corpus.mixture import SEED, corpus_digest, shard_examples
from appliance.demo.evaluate import MODEL
from appliance.demo.feed import CorpusFeed, encode
from appliance.demo.vocabulary import load_tokenizer


def test_processes_do_not_change_what_is_fed() -> None:
    """Shards come in order and hash as if this process had made them."""
    tokenizer = load_tokenizer(MODEL)
    feed = CorpusFeed(2, shard_size=5)
    sizes = [(len(documents), documents.num_tokens) for documents in feed.documents(tokenizer, 11)]
    feed.close()
    shards = [shard_examples(SEED, shard, 5) for shard in range(11)]
    assert sizes == [(5, encode(tokenizer, shard).num_tokens) for shard in shards]
    assert feed.sha256() == corpus_digest(map(corpus_hash, shards))
    assert (feed.num_examples, feed.num_tokens) == (55, sum(size for _, size in sizes))
