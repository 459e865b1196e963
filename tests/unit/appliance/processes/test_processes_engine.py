"""What the engine's process gives a gateway worker before its tickets have come."""

from pathlib import Path

from appliance.config import parse_configuration
from appliance.processes.engine import hold_limits


def test_prompts_without_tickets_fill_an_eighth_of_the_pages_whatever_the_number_of_workers(tmp_path: Path) -> None:
    """What is held of one worker never overruns a mailbox of its own when it is let go at once."""
    raw = (
        b'[[engines]]\nmodel_path = "m"\nmax_queued_requests = 5\n'
        b"[gateway]\nworkers = 4\nmax_unread_tokens = 100\nticket_lifetime_ms = 2500\n"
    )
    limits = hold_limits(parse_configuration(raw, tmp_path), 0, num_pages=3200)
    assert limits.max_prompt_tokens * 4 == 3200 * 16 // 8
    assert (limits.max_output_tokens, limits.max_requests, limits.wait_s) == (50, 5, 2.5)
