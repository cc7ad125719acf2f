"""`lapwing verify` on a real API server, with real servers behind the ports of its pods."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from lapwing.agent.resources import kinds
from lapwing.errors import DeploymentFailed
from lapwing.kubernetes import routes
from lapwing.kubernetes.verify import EdgeRequests, probe_routes
from tests.cluster import objects
from tests.cluster.control_plane import wait_until
from tests.cluster.servers import echo, fixed
from tests.cluster.simulated import Printed, all_take, prints
from tests.cluster.stacks import Stack
from tests.cluster.test_open import part
from tests.installation import free_port
from tests.needs import require

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
PASSWORD = "correct-horse-battery"


@contextmanager
def server(*command: str, port: int) -> Iterator[int]:
    """A program that listens on a port."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(answers, f"{command[0]} answers")
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def redis(folder: Path) -> Iterator[int]:
    port = free_port()
    words = ("--port", str(port), "--requirepass", PASSWORD, "--dir", str(folder), "--save", "")
    with server(require("redis"), *words, port=port):
        yield port


@contextmanager
def mongodb(folder: Path) -> Iterator[int]:
    program, port = require("mongodb"), free_port()
    (folder / "db").mkdir()
    words = kinds.of("mongodb", program).arguments(program, folder / "db", port)
    with server(*words, port=port):
        yield port


def database(stack: Stack, name: str, kind: str, port: int) -> list[dict[str, Any]]:
    """A StatefulSet as we render it, and its Secret."""
    made = objects.workload(stack.scope, name, f"{kind}:7", replicas=1, kind="StatefulSet")
    reference = {"secretKeyRef": {"name": name, "key": "password"}}
    for labels in (made["metadata"]["labels"], made["spec"]["template"]["metadata"]["labels"]):
        labels["app.kubernetes.io/component"] = kind
    [container] = made["spec"]["template"]["spec"]["containers"]
    container["ports"] = [{"name": "data", "containerPort": port}]
    container["env"] = [{"name": "X_PASSWORD", "valueFrom": reference}]
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": stack.scope.namespace},
        "data": {"password": base64.b64encode(PASSWORD.encode()).decode()},
    }
    return [secret, made]


def verify(stack: Stack, *words: str) -> tuple[int, dict[str, tuple[bool | None, str]]]:
    done = stack.call("verify", "--output", "json", *words)
    assert PASSWORD not in done.stdout + done.stderr
    assert done.stderr == ""
    return done.returncode, {f["check"]: (f["ok"], f["seen"]) for f in json.loads(done.stdout)}


@contextmanager
def user(port: int) -> Iterator[None]:
    """Somebody who uses the cache, for as long as it is wanted."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(f"AUTH {PASSWORD}\r\nSET a 1\r\nGET a\r\n".encode())
        said = b""
        until = time.monotonic() + 60
        while not said.endswith(b"$1\r\n1\r\n"):
            assert time.monotonic() < until
            said += client.recv(100)
        yield


def test_verify_passes_and_names_what_breaks(stack: Stack, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    things = [
        part(stack, "api", 3000, "http"),
        part(stack, "edge", 8443, "web", replicas=1),
        objects.job(stack.scope, "migrate-1", "shop/api:v1"),
        *database(stack, "cache", "redis", 6379),
        *database(stack, "db", "mongodb", 27017),
    ]
    with echo(certificate) as web, mongodb(tmp_path) as mongo:
        with redis(tmp_path) as cache, user(cache):
            stack.put(*things)
            ports = {8443: web, 27017: mongo, 6379: cache}
            all_take(stack.cluster, stack.scope.namespace, ports)
            status, found = verify(stack)
            assert found["API server responds"] == (True, stack.api.version())
            assert found[f"namespace {stack.scope.namespace} exists"] == (True, "Active")
            assert found["api: every pod is ready"] == (True, "2 of 2 pods ready")
            assert found["migrate-1: job completed"] == (True, "completed")
            assert found["secret cache exists"] == (True, "with password")
            assert found["cache: redis responds"][1].startswith("version ")
            assert found["cache: redis is used"] == (True, "1 clients, 1 keys, 1 hits, 0 misses")
            assert found["db: mongodb responds"] == (True, "writable")
            assert found["the edge's certificate is valid"][0] is True
            assert found["api: GET / through the edge"] == (True, "200")
            assert status == 0, found
            shown = stack.call("verify")
            assert shown.returncode == 0
            assert shown.stdout.splitlines()[0].split() == ["CHECK", "RESULT"]
            assert "FAILED" not in shown.stdout
        # The cache has gone, and a Secret was emptied.
        path = f"/api/v1/namespaces/{stack.scope.namespace}/secrets/db"
        stack.cluster.call(
            "PATCH", path, {"data": {"password": None}}, "application/merge-patch+json"
        )
        status, found = verify(stack)
        assert status == 1
        assert found["cache: redis responds"][0] is False
        assert found["cache: redis is used"] == (None, "not checked")
        assert found["secret db exists"] == (False, "without key password")
        assert found["db: mongodb responds"][0] is True
    # The edge and the database have gone, too: each is named.
    status, found = verify(stack)
    assert status == 1
    assert found["db: mongodb responds"][0] is False
    assert found["api: GET / through the edge"][0] is False


def self_signed(folder: Path) -> Path:
    files = ["-keyout", folder / "key.pem", "-out", folder / "crt.pem"]
    asked = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=x", *files]
    subprocess.run(asked, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "crt.pem").read_bytes())
    return both


def test_verify_shows_the_log_of_a_crash_loop(stack: Stack, tmp_path: Path) -> None:
    stack.put(objects.workload(stack.scope, "api", "shop/api:crash", replicas=1), ready=False)
    wait_until(lambda: bool(stack.pods() and stack.pods()[0].get("status", {}).get("podIP")), "pod")
    printed = Printed(tmp_path / "before.log")
    printed.say("Traceback (most recent call last):", "KeyError: 'SESSION_KEY'")
    prints(stack.cluster, stack.pods()[0], Printed(tmp_path / "now.log").path, printed.path)
    wait_until(lambda: "KeyError" in stack.call("verify").stdout, "the log is there")
    status, found = verify(stack)
    assert status == 1
    ok, seen = found["api: every pod is ready"]
    assert ok is False
    assert "crash loop (exit status 3, 4 restarts)" in seen
    shown = stack.call("verify").stdout
    assert "api: every pod is ready, last lines:\n    Traceback" in shown
    assert "    KeyError: 'SESSION_KEY'" in shown


def test_forbidden_check_does_not_pass(stack: Stack, tmp_path: Path) -> None:
    """Somebody who may look at pods and forward ports, but read no Secret."""
    with redis(tmp_path) as cache:
        stack.put(*database(stack, "cache", "redis", 6379))
        all_take(stack.cluster, stack.scope.namespace, {6379: cache})
        stack.environ["KUBECONFIG"] = str(somebody(stack, tmp_path))
        status, found = verify(stack)
    assert status == 1
    assert found["cache: every pod is ready"][0] is True
    ok, why = found["secret cache exists"]
    assert ok is None
    assert "Permission denied by the API server" in why
    assert found["cache: redis responds"][0] is None
    assert found["cache: redis is used"] == (None, "not checked")


def test_deployment_waits_until_no_route_is_unavailable(stack: Stack) -> None:
    said: list[str] = []

    def wait(timeout_s: float) -> None:
        requests = EdgeRequests({"api": "/healthz"}, "shop.example")
        routes.wait_until_answered(
            stack.api, stack.scope, requests, report=said.append, say=said.append,
            timeout_s=timeout_s,
        )  # fmt: skip

    stack.put(part(stack, "edge", 8080, "web", replicas=1))
    wait(60.0)
    assert said[0].startswith("The routes were not checked: edge")
    with fixed(503) as server:
        all_take(stack.cluster, stack.scope.namespace, {8080: server.server_address[1]})
        failure = "not available: api: GET /healthz through the edge: 503"
        with pytest.raises(DeploymentFailed, match=failure):
            wait(0.0)
        threading.Timer(2.0, lambda: setattr(server, "status", 404)).start()
        said.clear()
        wait(60.0)
        assert set(said) == {"api: GET /healthz through the edge: 503"}
        paths = {"api": "/api", "page": "/"}
        requests = EdgeRequests(paths, "shop.example", without_health=frozenset({"api"}))
        probed = probe_routes(stack.api, stack.scope, requests)
        assert [(r.ok, r.seen) for r in probed] == [(True, "404"), (False, "404")]


def test_unreachable_cluster_is_a_failed_check_in_json(stack: Stack) -> None:
    config = yaml.safe_load(stack.cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{free_port()}"
    path = stack.folder / "away"
    path.write_text(yaml.safe_dump(config))
    stack.environ["KUBECONFIG"] = str(path)
    status, found = verify(stack)
    assert status == 1
    assert found["API server responds"][0] is False


def somebody(stack: Stack, folder: Path) -> Path:
    """A kubeconfig of a service account with few rights."""
    call, namespace = stack.cluster.call, stack.scope.namespace
    meta = {"name": "somebody", "namespace": namespace}
    base = f"/api/v1/namespaces/{namespace}"
    rights = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
    call("POST", f"{base}/serviceaccounts", account)
    read = {"resources": ["*"], "apiGroups": ["apps", "batch", "argoproj.io"], "verbs": ["list"]}
    core = {"resources": ["pods", "namespaces"], "apiGroups": [""], "verbs": ["get", "list"]}
    ports = {"resources": ["pods/portforward"], "apiGroups": [""], "verbs": ["get", "create"]}
    group = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta}
    call("POST", f"{rights}/roles", {**role, "rules": [read, core, ports]})
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "somebody"},
        "subjects": [{"kind": "ServiceAccount", **meta}],
    }
    call("POST", f"{rights}/rolebindings", binding)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    given = call("POST", f"{base}/serviceaccounts/somebody/token", asked)
    config = yaml.safe_load(stack.cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": given["status"]["token"]}
    path = folder / "somebody"
    path.write_text(yaml.safe_dump(config))
    return path
