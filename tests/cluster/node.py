"""A real Kubernetes node: containerd, kubelet, kube-proxy and CoreDNS, which run real containers.
kube-router enforces network policies.

    private network: etcd, API server, controllers, registry, the test
        private mounts and processes: containerd, kubelet, kube-proxy, kube-router, the containers

Everything that the node changes on the machine is in namespaces: mounts over /run, /var/lib and
/var/log, the interfaces of pods, and firewall rules. The namespaces end with the first process of
the PID namespace; only control groups have to be removed afterwards. The test runs in the network
of the node, so it reaches pods and Services like a node.

The programs are made by `.ci/install-node`. Needs root and cgroup v1.
Sources: kubelet configuration (v1beta1); containerd, CRI plugin configuration and hosts.toml.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import node_objects
from tests.cluster.control_plane import NODE, Cluster, wait_until
from tests.networks import private_network

ADDRESS = "192.168.77.1"
"""The address of the node, on the loopback interface of the private network only."""
SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/24"
CGROUPS = Path("/sys/fs/cgroup")
KERNEL = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
"""Kernel settings that a kubelet changes; they are replaced by plain files."""
SOCKET = "/run/containerd/containerd.sock"


class Node:
    """A node of a cluster, which pulls every image from the registry at `registry`."""

    def __init__(self, cluster: Cluster, registry: str) -> None:
        self.cluster = cluster
        self.folder = cluster.folder / "node"
        self.folder.mkdir()
        self.group = f"lapwing-node-{os.getpid()}"
        self._write_settings(registry)
        self._spaces: subprocess.Popen[bytes] | None = None
        self._kubelet: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Node:
        try:
            self._make_groups()
            self._make_spaces()
            self._run("containerd", "containerd", "--config", str(self.folder / "containerd.toml"))
            wait_until(self._runtime_answers, "containerd answers")
            self._start_kubelet()
            self._run("kube-proxy", *self._proxy_command())
            wait_until(self.is_ready, "the node is ready")
            self._run("kube-router", *self._firewall_command())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._spaces is not None:
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(self._first, signal.SIGKILL)
            self._spaces.wait(60)
        wait_until(self._remove_groups, "the control groups of the node are removed", 60)

    def is_ready(self) -> bool:
        """Whether the node reports that it is ready."""
        node = self.cluster.call("GET", f"/api/v1/nodes/{NODE}") or {}
        conditions = node.get("status", {}).get("conditions", ())
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def restart_kubelet(self) -> None:
        """Kill the kubelet with SIGKILL and start it again."""
        assert self._kubelet is not None
        os.kill(_child(self._kubelet.pid), signal.SIGKILL)
        self._kubelet.wait(60)
        self._start_kubelet()

    def run(self, *command: str) -> None:
        """Run a command among the files and processes of the node."""
        subprocess.run(self._inside(*command), check=True)

    def _start_kubelet(self) -> None:
        self._kubelet = self._run(
            "kubelet", str(self.cluster.parts / "kubelet"),
            f"--config={self.folder / 'kubelet.yaml'}",
            f"--kubeconfig={self.folder / 'kubeconfig'}", f"--hostname-override={NODE}",
            f"--node-ip={ADDRESS}", "--root-dir=/var/lib/kubelet",
        )  # fmt: skip

    def _run(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        return self.cluster.start(name, *self._inside(*command))

    def _inside(self, *command: str) -> tuple[str, ...]:
        return ("nsenter", f"--target={self._first}", "--mount", "--pid", *command)

    @property
    def _first(self) -> int:
        """The first process of the namespaces."""
        assert self._spaces is not None
        return _child(self._spaces.pid)

    def _runtime_answers(self) -> bool:
        asked = self._inside("ctr", "--address", SOCKET, "version")
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    def _make_spaces(self) -> None:
        """Start the first process, which ends with this thread and reaps orphaned processes."""
        ready = self.folder / "ready"
        lines = ["set -e"]
        lines += [f"mount -t tmpfs tmpfs {folder}" for folder in ("/run", "/var/lib", "/var/log")]
        lines += [f"mkdir -p {Path(SOCKET).parent}"]
        for setting in KERNEL:
            file, at = self.folder / setting.replace("/", "-"), f"/proc/sys/{setting}"
            lines.append(f"cat {at} > {file} && mount --bind {file} {at}")
        lines.append(f"touch {ready}; while :; do sleep 60; done")
        self._spaces = self.cluster.start(
            "node", "setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork",
            "--mount-proc", "--kill-child=KILL", "sh", "-c", "\n".join(lines),
        )  # fmt: skip
        wait_until(ready.exists, "the namespaces of the node are there")

    def _make_groups(self) -> None:
        for hierarchy in _hierarchies():
            group = hierarchy / self.group
            group.mkdir()
            for setting in ("cpuset.cpus", "cpuset.mems"):
                if (group / setting).exists():
                    (group / setting).write_text((hierarchy / setting).read_text())

    def _remove_groups(self) -> bool:
        """Remove the control groups, the deepest first; False while a process is in one."""
        for hierarchy in _hierarchies():
            for folder, _, _ in os.walk(hierarchy / self.group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        return not any((hierarchy / self.group).exists() for hierarchy in _hierarchies())

    def _proxy_command(self) -> tuple[str, ...]:
        """The program that forwards connections to Services.

        In its mode `iptables`, two tables are replaced one after the other. When a Service gets its
        first endpoint again, such as after a restart of the only kubelet, a SYN between both is
        neither rejected nor translated, and the kernel tracks the connection like that: it is lost
        (kubernetes #48719). Measured with 60 changes: 77 of 60,307 connections; none of 69,998 in
        the mode `nftables`, which replaces all rules at once.
        """
        return (
            str(self.cluster.parts / "kube-proxy"), f"--kubeconfig={self.cluster.kubeconfig}",
            f"--hostname-override={NODE}", "--proxy-mode=nftables", f"--cluster-cidr={PODS}",
            "--conntrack-max-per-core=0", "--conntrack-min=0",
            "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
        )  # fmt: skip

    def _firewall_command(self) -> tuple[str, ...]:
        """The program that enforces network policies."""
        return (
            str(self.cluster.parts / "kube-router"), f"--kubeconfig={self.cluster.kubeconfig}",
            f"--hostname-override={NODE}", f"--service-cluster-ip-range={SERVICES}",
            "--run-firewall=true", "--run-router=false", "--run-service-proxy=false",
            "--enable-cni=false", "--health-port=0",
        )  # fmt: skip

    def _write_settings(self, registry: str) -> None:
        """Write the configuration of the programs."""
        hosts = self.folder / "hosts" / "_default"
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(
            f'[host."http://{registry}"]\ncapabilities = ["pull", "resolve"]\n'
        )
        networks = self.folder / "cni"
        networks.mkdir()
        ipam = {"type": "host-local", "subnet": PODS, "routes": [{"dst": "0.0.0.0/0"}]}
        plugins: list[dict[str, Any]] = [
            {"type": "ptp", "ipMasq": False, "ipam": ipam},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ]
        network = {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}
        (networks / "pods.conflist").write_text(json.dumps(network))
        (self.folder / "resolv.conf").touch()
        (self.folder / "containerd.toml").write_text(_containerd(networks, hosts.parent))
        (self.folder / "kubelet.yaml").write_text(json.dumps(self._kubelet_settings()))
        self._write_kubeconfig()

    def _write_kubeconfig(self) -> None:
        """Write the kubelet's kubeconfig: the administrator's with its certificate."""
        f, config = self.cluster.folder, yaml.safe_load(self.cluster.kubeconfig.read_text())
        config["users"][0]["user"] = {
            "client-certificate": f"{f}/kubelet.crt",
            "client-key": f"{f}/kubelet.key",
        }
        (self.folder / "kubeconfig").write_text(yaml.safe_dump(config))

    def _kubelet_settings(self) -> dict[str, Any]:
        f = self.cluster.folder
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{f}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{f}/kubelet.crt",
            "tlsPrivateKeyFile": f"{f}/kubelet.key",
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.group}",
            "enforceNodeAllocatable": ["pods"],
            "failSwapOn": False,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%"},
            "clusterDNS": [node_objects.DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self.folder / "resolv.conf"),
            "volumePluginDir": "/run/volume-plugins",
        }


def _containerd(networks: Path, hosts: Path) -> str:
    """Write containerd's settings."""
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
[grpc]
address = "{SOCKET}"
[{cri}]
sandbox_image = "docker.io/library/pause:1"
restrict_oom_score_adj = true
[{cri}.cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{networks}"
[{cri}.registry]
config_path = "{hosts}"
"""


def _hierarchies() -> list[Path]:
    """The hierarchies of control groups: one for each controller, and the two of systemd."""
    return [path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _child(process: int) -> int:
    """The only child of a process."""
    children = Path(f"/proc/{process}/task/{process}/children")
    until = time.monotonic() + 60
    while not (found := children.read_text().split()) and time.monotonic() < until:
        time.sleep(0.01)
    return int(found[0])


@contextlib.contextmanager
def node_network() -> Iterator[None]:
    """Move this thread and what it starts into a new network with the address of a node."""
    with private_network():
        for arguments in (
            ("address", "add", f"{ADDRESS}/32", "dev", "lo"),
            # A packet to a Service needs some route before the firewall changes its address.
            ("route", "add", SERVICES, "dev", "lo", "src", ADDRESS),
        ):
            subprocess.run(["ip", *arguments], check=True)
        yield
