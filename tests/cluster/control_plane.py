"""A real cluster for the tests, without containers: the real API server with etcd, the real
controllers and scheduler, the real Argo Rollouts controller, and kwok, which plays the nodes.

Everything is on loopback, on free ports, in one temporary folder, and ends with its `with` block.
The programs are made by `.ci/install-cluster`, which `make test-cluster` runs.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.installation import free_port

HERE = Path(__file__).parent
CONTEXT = "kind-lapwing-test"
LOOPBACK = "127.0.0.1"
NODE = "node-1"
API_PORT = 6443
"""The usual port of an API server, which network policies of charts allow."""
STARTS = 180.0
"""Seconds in which a program has to come to life, on a machine that is very busy."""


class Cluster:
    """A running control plane. `kubeconfig` gives access; `parts` is the folder of the programs.

    Nodes reach it at `address`, which must not be a loopback address if they are real.
    """

    def __init__(self, parts: Path, address: str = LOOPBACK) -> None:
        self.parts = parts
        self.address = address
        shared = Path("/dev/shm")  # etcd syncs every write; nothing here has to survive.
        self.folder = Path(
            tempfile.mkdtemp(prefix="lapwing-cluster-", dir=shared if shared.is_dir() else None)
        )
        self.kubeconfig = self.folder / "kubeconfig"
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._authority = _Authority(self.folder)
        self._port = free_port() if self.is_simulated else API_PORT
        self.server = f"https://{address}:{self._port}"

    def __enter__(self) -> Cluster:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for _name, process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method: str, path: str, body: Any = None, kind: str = "json") -> Any:
        """One request to the API server with an administrator's rights, without our client.

        None where there is no such thing."""
        types = {"json": "application/json", "apply": "application/apply-patch+yaml"}
        request = urllib.request.Request(
            self.server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": types.get(kind, kind)},
        )
        try:
            with urllib.request.urlopen(request, context=self._trust, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise AssertionError(f"{method} {path}: {error.code} {error.read()!r}") from None

    def define(self, *groups: str) -> None:
        """Install the custom resource definitions of these groups, and wait until they serve."""
        import yaml

        for group in groups:
            for path in sorted((self.parts / "crds" / group).glob("*.yaml")):
                for thing in yaml.safe_load_all(path.read_text()):
                    if not thing or thing["kind"] != "CustomResourceDefinition":
                        continue
                    name = thing["metadata"]["name"]
                    at = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
                    self.call("PATCH", f"{at}?fieldManager=test&force=true", thing, "apply")

                    def serves(at: str = at) -> bool:
                        status = self.call("GET", at).get("status") or {}
                        conditions = {
                            c["type"]: c["status"] for c in status.get("conditions") or ()
                        }
                        return conditions.get("Established") == "True"

                    wait_until(serves, f"{name} is established")

    @property
    def is_simulated(self) -> bool:
        """Whether its nodes are kwok's."""
        return self.address == LOOPBACK

    @property
    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._authority.certificate))
        context.load_cert_chain(self.folder / "admin.crt", self.folder / "admin.key")
        return context

    def _start(self) -> None:
        a = self._authority
        names = (self.address, "10.96.0.1", "kubernetes.default.svc")
        a.issue("server", "kube-apiserver", names=names)
        a.issue("admin", "test-admin", groups=("system:masters",))
        # Both a client and a server: kwok's, or a kubelet's.
        a.issue("kubelet", f"system:node:{NODE}", ("system:nodes",), (self.address,))
        a.issue("front-proxy", "front-proxy")
        self._write_kubeconfig()
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self.folder / "accounts.key").write_bytes(_pem(key))
        client, peer = free_port(), free_port()
        etcd = f"http://127.0.0.1:{client}"
        self.start(
            "etcd", shutil.which("etcd") or "etcd",
            "--data-dir", str(self.folder / "etcd"),
            "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
            "--listen-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-cluster", f"default=http://127.0.0.1:{peer}",
        )  # fmt: skip
        plane = str(self.parts / "control-plane")
        f = str(self.folder)
        self.start(
            "apiserver", plane, "kube-apiserver",
            f"--etcd-servers={etcd}", f"--bind-address={self.address}",
            f"--secure-port={self._port}", f"--advertise-address={self.address}",
            f"--tls-cert-file={f}/server.crt", f"--tls-private-key-file={f}/server.key",
            f"--client-ca-file={f}/ca.crt", f"--cert-dir={f}",
            f"--kubelet-client-certificate={f}/admin.crt", f"--kubelet-client-key={f}/admin.key",
            f"--kubelet-certificate-authority={f}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={f}/accounts.key",
            f"--service-account-signing-key-file={f}/accounts.key",
            "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=Node,RBAC",
            f"--requestheader-client-ca-file={f}/ca.crt",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={f}/front-proxy.crt",
            f"--proxy-client-key-file={f}/front-proxy.key",
            *(["--endpoint-reconciler-type=none"] if self.is_simulated else []),
            # Debian's etcd tells no progress, without which a list cannot be had as a watch:
            # clients that try it wait long before they ask as ever.
            "--feature-gates=WatchList=false",
        )  # fmt: skip
        self._wait_for_server()
        config = str(self.kubeconfig)
        self.start(
            "controllers", plane, "kube-controller-manager", f"--kubeconfig={config}",
            f"--service-account-private-key-file={f}/accounts.key", f"--root-ca-file={f}/ca.crt",
            "--leader-elect=false", "--secure-port=0", "--bind-address=127.0.0.1",
            "--kube-api-qps=200", "--kube-api-burst=400",
            # A simulated node has no heartbeat: after 50 s, its pods would be called unready, and
            # nobody would ever call them ready again.
            *(["--node-monitor-grace-period=1h"] if self.is_simulated else []),
        )  # fmt: skip
        self.start(
            "scheduler", plane, "kube-scheduler", f"--kubeconfig={config}",
            "--leader-elect=false", "--secure-port=0", "--bind-address=127.0.0.1",
        )  # fmt: skip

    def start_nodes(self) -> None:
        """Start kwok and give the cluster a node; kwok's definitions have to be installed."""
        f, config = self.folder, str(self.kubeconfig)
        node_port = free_port()
        self.start(
            "kwok", str(self.parts / "kwok"), f"--kubeconfig={config}",
            f"--config={HERE / 'stages.yaml'}", "--manage-all-nodes=true",
            "--node-ip=127.0.0.1", f"--node-port={node_port}",
            f"--server-address=127.0.0.1:{node_port}",
            f"--tls-cert-file={f}/kubelet.crt", f"--tls-private-key-file={f}/kubelet.key",
            "--enable-crds=Logs,ClusterLogs,PortForward,ClusterPortForward",
        )  # fmt: skip
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        self.call("POST", "/api/v1/nodes", node)

    def start_rollouts(self) -> None:
        """Start the Argo Rollouts controller; its definitions have to be installed."""
        self.start(
            "rollouts", str(self.parts / "rollouts-controller"),
            f"--kubeconfig={self.kubeconfig}", "--leader-elect=false",
            f"--metricsPort={free_port()}", f"--healthzPort={free_port()}",
            "--qps=200", "--burst=400", "--namespace=argo-rollouts",
        )  # fmt: skip

    def restart_rollouts(self) -> None:
        """Kill the Argo Rollouts controller with SIGKILL and start it again."""
        [process] = [p for name, p in self._running if name == "rollouts" and p.poll() is None]
        process.kill()
        process.wait()
        self.start_rollouts()

    def _wait_for_server(self) -> None:
        def answers() -> bool:
            try:
                with urllib.request.urlopen(
                    self.server + "/readyz", context=self._trust, timeout=5
                ) as answer:
                    return bool(answer.status == 200)
            except (OSError, urllib.error.URLError):
                self._all_live()
                return False

        wait_until(answers, "the API server is ready", STARTS)

    def _all_live(self) -> None:
        for name, process in self._running:
            if process.poll() is not None:
                text = (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]
                raise AssertionError(f"{name} ended with {process.returncode}:\n{text}")

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a program that ends with the cluster."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        self._running.append((name, process))
        return process

    def _write_kubeconfig(self) -> None:
        import yaml

        f = self.folder
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": CONTEXT,
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": self.server, "certificate-authority": f"{f}/ca.crt"},
                }
            ],
            "users": [
                {
                    "name": "admin",
                    "user": {
                        "client-certificate": f"{f}/admin.crt",
                        "client-key": f"{f}/admin.key",
                    },
                }
            ],
            "contexts": [
                {"name": name, "context": {"cluster": "test", "user": "admin"}}
                for name in (CONTEXT, "production")
            ],
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))


class _Authority:
    """The certificate authority of a test cluster."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test-ca")])
        made = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate = folder / "ca.crt"
        self.certificate.write_bytes(
            made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )

    def issue(
        self, file: str, name: str, groups: tuple[str, ...] = (), names: tuple[str, ...] = ()
    ) -> None:
        """Write a certificate and its key; `names` are addresses and host names of a server."""
        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]
        parts += [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, g) for g in groups]
        made = self._builder(x509.Name(parts), key)
        if names:
            alternatives = x509.SubjectAlternativeName([_general_name(each) for each in names])
            made = made.add_extension(alternatives, critical=False)
        signed = made.sign(self._key, hashes.SHA256())
        (self._folder / f"{file}.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        (self._folder / f"{file}.key").write_bytes(_pem(key))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
        )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def wait_until(holds: Callable[[], bool], what: str, seconds: float = STARTS) -> None:
    """Wait for a condition."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
