"""OpenAI's own client of an appliance."""

import openai

from tests.support.appliance import Appliance


def open_sdk(appliance: Appliance) -> openai.OpenAI:
    """A client with connections and a token of its own, which tries nothing twice."""
    return openai.OpenAI(
        base_url=f"{appliance.url}/v1", api_key=appliance.token(), max_retries=0,
        http_client=openai.DefaultHttpxClient(verify=appliance.client.tls),
    )  # fmt: skip
