"""Delays before a restart double, are bounded, and are forgotten after a stable life."""

from appliance.supervisor.backoff import Backoff
from appliance.supervisor.settings import SupervisorSettings

SETTINGS = SupervisorSettings(restart_delay_s=0.5, max_restart_delay_s=4.0, stable_after_s=30.0)


def test_delays_double_up_to_the_bound() -> None:
    """0.5, 1, 2, 4, 4, … also after so many failures that doubling would overflow."""
    backoff = Backoff(SETTINGS)
    assert [backoff.next_delay_s(now) for now in range(5)] == [0.5, 1.0, 2.0, 4.0, 4.0]
    assert {backoff.next_delay_s(0.0) for _ in range(5000)} == {4.0}


def test_a_stable_life_starts_over_and_a_short_one_does_not() -> None:
    """Ready for `stable_after_s` counts; ready for a moment is a crash loop."""
    backoff = Backoff(SETTINGS)
    backoff.next_delay_s(0.0)
    backoff.note_ready(1.0)
    assert backoff.next_delay_s(2.0) == 1.0
    backoff.note_ready(3.0)
    assert backoff.next_delay_s(33.0) == 0.5
