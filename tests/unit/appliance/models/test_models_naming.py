"""Of several models that are served, an error says which one."""

import pytest

from appliance.models.naming import naming_model
from runtime.errors import CheckpointRejected, EngineMisconfigured


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CheckpointRejected("config.json: not valid JSON"), "/models/ours: config.json: not valid JSON"),
        (CheckpointRejected("/models/ours/x.safetensors: truncated"), "/models/ours/x.safetensors: truncated"),
        (EngineMisconfigured("device: 'cuda' cannot be used"), "device: 'cuda' cannot be used"),
    ],
    ids=str,
)
def test_an_error_in_a_folder_names_it_once(error: Exception, said: str) -> None:
    """What is no fault of the folder, or names it, stays as it is."""
    with pytest.raises(type(error)) as caught, naming_model("/models/ours"):
        raise error
    assert str(caught.value) == said
