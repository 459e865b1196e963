"""The checks of an import, on the demo model and on what is wrong with others."""

import json
import shutil
from pathlib import Path

import pytest

from appliance.config.defaults import DEMO_MODEL_DIR
from appliance.models.checks import check_headers, check_tensors, check_text, checks_of
from security.errors import ModelFolderRejected
from tests.support.controls import control


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo model."""
    return Path(shutil.copytree(DEMO_MODEL_DIR, tmp_path / "model"))


def change_json(path: Path, **members: object) -> None:
    """Set members of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | members))


def test_demo_model_passes_all_checks(folder: Path) -> None:
    """With facts for the record."""
    facts: dict[str, str | int] = {}
    for check in checks_of("model"):
        facts |= check(folder)
    assert facts["has_template"] == 1
    assert int(facts["weight_bytes"]) == (folder / "model.safetensors").stat().st_size
    assert checks_of("draft") == (check_headers,)


def test_header_with_a_key_twice_is_refused(folder: Path) -> None:
    """The library takes it; two readers would see two models."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].rstrip()
    name = next(name for name in json.loads(header) if name != "__metadata__")
    entry = json.dumps(json.loads(header)[name])
    doubled = header[:-1] + f',"{name}":{entry}}}'.encode()
    path.write_bytes(len(doubled).to_bytes(8, "little") + doubled + data[8 + length :])
    for check in (check_tensors, check_headers):
        with pytest.raises(ModelFolderRejected, match="twice"):
            check(folder)


def test_sizes_are_those_of_the_configuration(folder: Path) -> None:
    """A configuration of another model, and weights of 70 GB that no header speaks of."""
    change_json(folder / "config.json", vocab_size=100)
    with pytest.raises(ModelFolderRejected, match="expected shape"):
        check_tensors(folder)
    shutil.copy(DEMO_MODEL_DIR / "config.json", folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(70 << 30)
    with pytest.raises(ModelFolderRejected, match="belong to none"):
        check_tensors(folder)


@control("3.4.8", "3.13.13", "CM-7(5)", "SC-18")
@pytest.mark.parametrize("place", ["config.json", "tokenizer_config.json", "draft/config.json"])
def test_auto_map_is_refused_wherever_it_stands(folder: Path, place: str) -> None:
    """Subfolders too."""
    (folder / place).parent.mkdir(exist_ok=True)
    if not (folder / place).exists():
        (folder / place).write_text("{}")
    change_json(folder / place, auto_map={"AutoModel": "modeling.Evil"})
    with pytest.raises(ModelFolderRejected, match="auto_map"):
        check_headers(folder)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "cannot render"),
        ("{% for a in range(99999999) %}{% for b in range(99999999) %}{% endfor %}{% endfor %}", "cannot render"),
        ("{% for", "chat template"),
        ("{{ raise_exception('no') }}", "cannot render"),
        ("{% include '/etc/passwd' %}", "cannot render"),
    ],
    ids=["reaches for python", "does not end", "does not compile", "refuses everything", "reads files"],
)
def test_template_is_rendered_in_the_sandbox(folder: Path, template: str, message: str) -> None:
    """A template that cannot do a plain conversation, or that tries to get out, does not get in."""
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelFolderRejected, match=message):
        check_text(folder)


@control("3.4.8", "3.7.4", "3.13.13", "3.14.2", "CM-3(2)", "CM-7(5)", "SC-18", "SI-3")
def test_pickle_in_a_subfolder_is_refused(folder: Path) -> None:
    """Whatever its place."""
    (folder / "draft").mkdir()
    (folder / "draft" / "x.bin").touch()
    with pytest.raises(ModelFolderRejected, match="pickle"):
        check_headers(folder)
