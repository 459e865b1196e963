"""OpenAI's own client of an appliance."""

import openai

from tests.support.appliance import Appliance
from tests.support.waiting import GIVE_UP_S


def open_sdk(appliance: Appliance, token: str = "") -> openai.OpenAI:
    """A client with connections of its own, and a token of its own if none is given.

    It tries nothing twice, and waits longer for a connection than the five seconds that it would.
    """
    return openai.OpenAI(
        base_url=f"{appliance.url}/v1", api_key=token or appliance.token(), max_retries=0,
        timeout=openai.Timeout(600.0, connect=GIVE_UP_S), http_client=openai.DefaultHttpxClient(verify=appliance.client.tls),
    )  # fmt: skip
