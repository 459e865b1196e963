"""The restricted Pod Security Standard, rule by rule: what it finds wrong with a pod.

Source: Kubernetes, Pod Security Standards, "Restricted", with all that it takes over from "Baseline"; for Linux pods.
"""

import re
from collections.abc import Iterator
from typing import Any

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP = ("RuntimeDefault", "Localhost")


def problems_of_pod(metadata: dict[str, Any], pod: dict[str, Any]) -> list[str]:
    """What the standard refuses of a pod's metadata and specification."""
    containers = [container for kind in _CONTAINERS for container in pod.get(kind, ())]
    found = [*_of_pod(metadata, pod)]
    for container in containers:
        own, shared = container.get("securityContext", {}), pod.get("securityContext", {})
        found += [f"{container['name']}: {problem}" for problem in _of_container(container, own, shared)]
    return found


def _of_pod(metadata: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name))
    yield from (f"volume {one['name']}" for one in pod.get("volumes", ()) if not set(one) - {"name"} <= _VOLUMES)
    context = pod.get("securityContext", {})
    yield from _of_context(context)
    yield from (f"sysctl {one['name']}" for one in context.get("sysctls", ()) if one["name"] not in _SYSCTLS)
    for name, value in metadata.get("annotations", {}).items():
        if name.startswith(_APPARMOR) and not re.match(r"runtime/default$|localhost/", value):
            yield f"annotation {name}"


def _of_container(container: dict[str, Any], own: dict[str, Any], shared: dict[str, Any]) -> Iterator[str]:
    yield from _of_context(own)
    if own.get("privileged"):
        yield "privileged"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "hostPort"
    probes = [container.get(f"{name}Probe", {}) for name in ("liveness", "readiness", "startup")]
    hooks = [*container.get("lifecycle", {}).values(), *probes]
    if any("host" in hook.get(kind, {}) for hook in hooks for kind in ("httpGet", "tcpSocket")):
        yield "host of a probe or hook"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if own.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot"
    if own.get("seccompProfile", shared.get("seccompProfile", {})).get("type") not in _SECCOMP:
        yield "seccompProfile"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()) or not set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"}:
        yield "capabilities"


def _of_context(context: dict[str, Any]) -> Iterator[str]:
    """What is forbidden of a pod and of a container alike."""
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
    if context.get("runAsUser") == 0:
        yield "runAsUser"
    if "seccompProfile" in context and context["seccompProfile"].get("type") not in _SECCOMP:
        yield "seccompProfile"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in _SECCOMP:
        yield "appArmorProfile"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in _SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions"
