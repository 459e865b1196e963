"""`x-ratelimit-*` headers: what is left of the tightest limit of each kind, in the form that OpenAI's clients read."""

from appliance.messages.policy import Left

Headers = list[tuple[bytes, bytes]]


_NAMES = tuple(
    (b"x-ratelimit-limit-" + kind, b"x-ratelimit-remaining-" + kind, b"x-ratelimit-reset-" + kind)
    for kind in (b"requests", b"tokens", b"tokens-day")
)


def quota_headers(requests: Left | None, tokens: Left | None, day_tokens: Left | None) -> Headers:
    """The headers for one answer; what is not limited has none."""
    headers: Headers = []
    for (limit, remaining, reset), left in zip(_NAMES, (requests, tokens, day_tokens), strict=True):
        if left is not None:
            headers += (
                (limit, b"%d" % left.limit),
                (remaining, b"%d" % left.remaining),
                (reset, format_duration(left.reset_ms).encode()),
            )
    return headers


def format_duration(milliseconds: int) -> str:
    """As OpenAI's server writes it: `120ms`, `1.5s`, `6m0s`, `1h2m3s`."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds, rest = divmod(milliseconds, 1000)
    if seconds < 60:
        return f"{seconds}.{rest:03d}".rstrip("0").rstrip(".") + "s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s"
