"""What is deployed by others' tools: systemd units by systemd's own judge, containers and pods by the rules that they claim."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance.config import ConfigurationRejected, parse_configuration
from appliance.config.defaults import DEMO_MODEL_DIR
from security.segmentation.model import Ports, build_arrows
from security.segmentation.network_policy import render_network_policies
from tests.support.controls import control
from tests.support.pod_security import problems_of_pod


@pytest.fixture
def deploy(project_root: Path) -> Path:
    """The folder of all of it."""
    return project_root / "deploy"


@pytest.fixture
def project_root() -> Path:
    """The repository."""
    return Path(__file__).parents[3]


@control("SI-16")
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(
    ("unit_name", "drop_ins"),
    [
        ("casemate.service", ""),
        ("casemate.service", "gpu.conf"),
        ("casemate.service", "tpm.conf"),
        ("casemate.service", "gpu.conf tpm.conf"),
        ("casemate-users.service", ""),
    ],
)
def test_systemd_unit_scores_at_most_two(deploy: Path, unit_name: str, drop_ins: str, tmp_path: Path) -> None:
    """`systemd-analyze security --offline`: 0 is closed, 10 is open; with the GPU's devices too. There is no other unit."""
    assert {path.name for path in (deploy / "systemd").glob("*.service")} == {
        "casemate.service",
        "casemate-users.service",
    }
    assert {path.name for path in (deploy / "systemd").glob("*.conf")} == {"gpu.conf", "tpm.conf"}
    unit = tmp_path / unit_name
    unit.write_text("".join((deploy / "systemd" / name).read_text() for name in (unit_name, *drop_ins.split())))
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze knows no --offline")
    assert "Overall exposure level" in done.stdout
    assert done.returncode == 0, done.stdout.splitlines()[-1]
    assert "ignoring" not in done.stderr, done.stderr  # A filter that is passed over would look as if it were there.


def test_systemd_unit_takes_back_interrupted_switches_and_drains(deploy: Path) -> None:
    """Before anything starts; and a stop leaves time for open requests."""
    text = (deploy / "systemd/casemate.service").read_text()
    assert re.search(
        r"^ExecStartPre=\+\S+ recover ", text, re.MULTILINE
    )  # As root: slots are not the service's to change.
    assert "KillMode=mixed" in text
    assert "RestartPreventExitStatus=78" in text
    assert "ReadWritePaths=/var/lib/casemate/state\n" in text
    assert "Type=notify\n" in text  # Or an upgrade would wait for a release that refused to start.


def test_compose_gives_nothing_that_is_not_needed(deploy: Path) -> None:
    """Read-only, no capabilities, no new privileges, not root, never pulled, no way out."""
    document = yaml.safe_load((deploy / "compose/compose.yaml").read_text())
    service = document["services"]["casemate"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["user"].split(":")[0] not in ("0", "root")
    assert service["pull_policy"] == "never"
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & set(service)
    assert document["networks"]["inside"]["driver_opts"]["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    assert all(volume["target"] != "/var/run/docker.sock" for volume in service["volumes"])


def load_pod(deploy: Path) -> dict[str, Any]:
    """The template of the one workload: metadata and specification of its pods."""
    documents = [
        one for path in sorted((deploy / "kubernetes").glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())
    ]
    (template,) = [
        one["spec"]["template"] for one in documents if one["kind"] not in ("Namespace", "Service", "NetworkPolicy")
    ]
    return dict(template)


def test_pods_are_restricted(deploy: Path) -> None:
    """Every rule of the restricted Pod Security Standard, which the namespace enforces, and some of ours beside."""
    template = load_pod(deploy)
    assert problems_of_pod(template["metadata"], template["spec"]) == []
    assert template["spec"]["automountServiceAccountToken"] is False
    for container in template["spec"]["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["imagePullPolicy"] == "Never"
    namespace = yaml.safe_load((deploy / "kubernetes/namespace.yaml").read_text())
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


POD, OWN = ("securityContext",), ("containers", 0, "securityContext")
SIDECAR = {"name": "more", "image": "x"}


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("hostNetwork",), True, "hostNetwork"),
        (("hostPID",), True, "hostPID"),
        (("volumes", 0), {"name": "host", "hostPath": {"path": "/"}}, "volume host"),
        ((*POD, "runAsUser"), 0, "runAsUser"),
        ((*POD, "runAsNonRoot"), False, "casemate: runAsNonRoot"),
        ((*POD, "seccompProfile"), {"type": "Unconfined"}, "seccompProfile"),
        ((*POD, "appArmorProfile"), {"type": "Unconfined"}, "appArmorProfile"),
        ((*POD, "sysctls"), [{"name": "kernel.msgmax", "value": "1"}], "sysctl kernel.msgmax"),
        ((*OWN, "allowPrivilegeEscalation"), None, "casemate: allowPrivilegeEscalation"),
        ((*OWN, "capabilities"), {"drop": ["ALL"], "add": ["SYS_ADMIN"]}, "casemate: capabilities"),
        ((*OWN, "capabilities"), {"drop": ["NET_RAW"]}, "casemate: capabilities"),
        ((*OWN, "privileged"), True, "casemate: privileged"),
        ((*OWN, "procMount"), "Unmasked", "casemate: procMount"),
        ((*OWN, "runAsNonRoot"), False, "casemate: runAsNonRoot"),
        ((*OWN, "seccompProfile"), {"type": "Unconfined"}, "casemate: seccompProfile"),
        ((*OWN, "seLinuxOptions"), {"type": "spc_t"}, "casemate: seLinuxOptions"),
        (("containers", 0, "ports", 0, "hostPort"), 443, "casemate: hostPort"),
        (("initContainers",), [SIDECAR], "more: allowPrivilegeEscalation"),
        (("ephemeralContainers",), [SIDECAR], "more: capabilities"),
    ],
)
def test_what_is_not_restricted_is_seen(deploy: Path, place: tuple[Any, ...], value: Any, problem: str) -> None:
    """One change of our own manifest at a time: or the test above would be content with anything."""
    template = load_pod(deploy)
    inner: Any = template["spec"]
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    assert problem in problems_of_pod(template["metadata"], template["spec"])


def test_configuration_of_the_documentation_is_one(project_root: Path) -> None:
    """The one that operations.md prints for a first production start is taken as it stands, but for where its model lies."""
    operations = (project_root / "docs/operations.md").read_text()
    (text,) = re.findall(r'```toml\n(mode = "production"\n.*?)```', operations, re.DOTALL)
    text = text.replace("/var/lib/casemate/state/models/promoted/my-model", str(DEMO_MODEL_DIR))
    with pytest.raises(
        ConfigurationRejected
    ) as caught:  # A plain folder, where the documentation has a promoted model.
        parse_configuration(text.encode(), project_root)
    (problem,) = caught.value.problems
    assert 'production needs "signed_models"' in problem.message


@control("3.1.3", "3.13.6", "AC-4", "SC-7(5)")
def test_network_policies_are_those_of_the_example_site(deploy: Path, project_root: Path) -> None:
    """Default-deny, one policy an arrow; the file is what the command prints for the site of the documentation."""
    operations = (project_root / "docs/operations.md").read_text()
    site = next(
        block for block in re.findall(r"```toml\n(.*?)```", operations, re.DOTALL) if block.startswith("[segments]")
    )
    text = f'{site}\n[[engines]]\nmodel_path = "{DEMO_MODEL_DIR}"\n'
    configuration = parse_configuration(text.encode(), project_root)
    ports = Ports(configuration.gateway.port, configuration.authority.port)
    rendered = render_network_policies(build_arrows(configuration.segments, ports), ports)
    assert (deploy / "kubernetes/network-policies.json").read_text() == rendered
    specs = {item["metadata"]["name"]: item["spec"] for item in json.loads(rendered)["items"]}
    assert specs["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert load_pod(deploy)["spec"]["dnsPolicy"] == "None"  # No arrow leads to a name server.
