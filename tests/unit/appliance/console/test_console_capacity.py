"""Numbers out of the metrics: no rate from one look, none over a restart."""

from appliance.console.capacity import Capacity


def scrape(tokens, *, engine="0", running=2):
    return (
        f'# HELP casemate_num_running_reqs x\ncasemate_num_running_reqs{{model_name="m",engine="{engine}"}} {running}\n'
        f'casemate_num_queue_reqs{{model_name="m",engine="{engine}"}} 1.0\n'
        f'casemate_token_usage{{model_name="m",engine="{engine}"}} 0.25\n'
        f'casemate_generation_tokens_total{{model_name="m",engine="{engine}"}} {tokens}\n'
        f'casemate_prompt_tokens_total{{model_name="m",engine="{engine}"}} 10\n'
    )


def test_rates_are_between_two_looks():
    """Over the time between them, for as long as it says something."""
    now = [1000.0]
    capacity = Capacity(clock=lambda: now[0])
    (first,) = capacity.read(scrape(100))
    assert (first.running, first.queued, first.token_usage, first.output_rate) == (2, 1, 0.25, None)
    now[0] += 2
    assert capacity.read(scrape(500))[0].output_rate == 200
    now[0] += 2
    assert capacity.read(scrape(50))[0].output_rate is None  # The engine was started again.
    now[0] += 1000
    assert capacity.read(scrape(90))[0].output_rate is None  # Too long ago to say how busy it is now.


def test_what_is_not_a_sample_is_passed_over():
    """Names are whole; a scrape without engines is an empty table."""
    assert Capacity().read("casemate_http_requests_active 3\nother{} 1\n") == []
