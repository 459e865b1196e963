"""One gateway serves several models, each from an engine of its own with tickets of its own."""

import json
from pathlib import Path

import openai

from tests.support.appliance import DEMO_MODEL, running_appliance


def test_each_model_is_answered_by_its_own_engine(tmp_path: Path) -> None:
    """Both names are listed and answered; a ticket for one engine is no good at the other, so a mix-up would be refused."""
    second = f"[[engines]]\nmodel_path = {json.dumps(str(DEMO_MODEL))}\nserved_model_name = 'second'"
    with (
        running_appliance(tmp_path / "two", engine_extra=second) as appliance,
        openai.OpenAI(
            base_url=f"{appliance.url}/v1",
            api_key=appliance.token(),
            max_retries=0,
            http_client=openai.DefaultHttpxClient(verify=appliance.client.tls),
        ) as sdk,
    ):
        names = sorted(model.id for model in sdk.models.list())
        assert names == ["casemate-demo", "second"]
        answers = {
            name: sdk.completions.create(model=name, prompt="Once upon a time", max_tokens=8, temperature=0)
            for name in names
        }
        assert answers["casemate-demo"].choices[0].text == answers["second"].choices[0].text
