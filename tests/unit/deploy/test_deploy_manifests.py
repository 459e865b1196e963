"""What is deployed by others' tools: systemd units by systemd's own judge, containers and pods by the rules that they claim."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance.config import parse_configuration
from appliance.config.defaults import DEMO_MODEL_DIR
from security.segmentation.model import Ports, build_arrows
from security.segmentation.network_policy import render_network_policies
from tests.support.controls import control

_ALLOWED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


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


def load_pods(deploy: Path) -> list[dict[str, Any]]:
    """Pod specifications of all workloads."""
    documents = [
        one for path in sorted((deploy / "kubernetes").glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())
    ]
    return [one["spec"]["template"]["spec"] for one in documents if one["kind"] in ("StatefulSet", "Deployment")]


def test_pods_are_restricted(deploy: Path) -> None:
    """Every rule of the restricted Pod Security Standard, one by one, and the namespace enforces it."""
    (pod,) = load_pods(deploy)
    assert not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
    assert all(set(volume) - {"name"} <= _ALLOWED_VOLUMES for volume in pod["volumes"])
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] != 0
    assert context["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
    assert not {"sysctls", "seLinuxOptions", "windowsOptions"} & set(context)
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["readOnlyRootFilesystem"] is True
        assert not own.get("privileged")
        assert all("hostPort" not in port for port in container["ports"])
        assert container["imagePullPolicy"] == "Never"
    assert pod["automountServiceAccountToken"] is False
    namespace = yaml.safe_load((deploy / "kubernetes/namespace.yaml").read_text())
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


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
    (pod,) = load_pods(deploy)
    assert pod["dnsPolicy"] == "None"  # No arrow leads to a name server.
