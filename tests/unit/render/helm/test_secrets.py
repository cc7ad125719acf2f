"""The Job that makes secrets: its real script, against a small server that answers as the API does.

Only the API server is small here; the script, the shell and curl are those of the machine.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lapwing.render.helm import chart, secrets
from lapwing.render.helm.chart import Templated
from lapwing.render.helm.secrets import Generated
from lapwing.render.kubernetes.setting import Extra, Scope, Setting, join, resolve
from tests.unit.render.helm import helm
from tests.unit.render.helm.test_emission import ABOUT, NOTES, SCOPES

SHOP = secrets.Generator(
    "shop", "shop.test", Extra(Setting("podSpec", {})), Extra(Setting("podMetadata", {}))
)
WANTED = (
    Generated(join(Scope.PREFIX, "-mysql"), {"password": 24, "root-password": 16}),
    Generated(join(Scope.PREFIX, "-private-key"), {"value": 256}),
    Generated(join(Scope.PREFIX, "-edge-tls"), {}),
)


class Api(ThreadingHTTPServer):
    """The answers of an API server to `create`: 201, 409 for a name that is there."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kept: dict[str, dict[str, Any]] = {}
        self.heads: list[str] = []
        self.refuse = False


class _Handler(BaseHTTPRequestHandler):
    server: Api

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.heads.append(f"{self.path} {self.headers['Authorization']}")
        name = body["metadata"]["name"]
        status = 403 if self.server.refuse else 409 if name in self.server.kept else 201
        if status == 201:
            self.server.kept[name] = body
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def run(api: Api, folder: Path) -> subprocess.CompletedProcess[str]:
    for program in ("curl", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}, which is not on this machine")
    (folder / "token").write_text("t0ken")
    (folder / "ca.crt").write_text("")
    found = resolve(secrets.objects(SHOP, WANTED), SCOPES)
    data = next(o for o in found if o["kind"] == "ConfigMap")["data"]
    pod = next(o for o in found if o["kind"] == "Job")["spec"]["template"]["spec"]
    containers = {c["name"]: c for c in pod["initContainers"] + pod["containers"]}
    env = {e["name"]: e.get("value", "prod") for c in containers.values() for e in c["env"]}
    env |= {"PATH": "/usr/bin:/bin", "API": f"http://127.0.0.1:{api.server_address[1]}"}
    (folder / "list").write_text(data["list"])
    script = data["sign"] + data["make"]
    script = script.replace("/tmp/", f"{folder}/").replace("/etc/secret-maker", str(folder))
    script = script.replace("/var/run/secrets/kubernetes.io/serviceaccount", str(folder))
    return subprocess.run(
        ["/bin/sh", "-c", script], env=env, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip


def test_each_secret_is_generated_once_and_kept(api: Api, tmp_path: Path) -> None:
    first = run(api, tmp_path)
    assert first.returncode == 0, first.stderr
    made = {name: secret["stringData"] for name, secret in api.kept.items()}
    assert {n: [len(v) for v in s.values()] for n, s in made.items() if n != "shop-edge-tls"} == {
        "shop-mysql": [24, 16],
        "shop-private-key": [256],
    }
    assert first.stdout == "created shop-mysql\ncreated shop-private-key\ncreated shop-edge-tls\n"
    assert api.kept["shop-edge-tls"]["type"] == "kubernetes.io/tls"
    certificate = x509.load_pem_x509_certificate(made["shop-edge-tls"]["tls.crt"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["shop.test", "localhost"]
    key = load_pem_private_key(made["shop-edge-tls"]["tls.key"].encode(), None)
    assert key.public_key() == certificate.public_key()
    second = run(api, tmp_path)
    assert second.stdout == first.stdout.replace("created", "kept")
    assert made == {name: secret["stringData"] for name, secret in api.kept.items()}
    assert set(api.heads) == {"/api/v1/namespaces/prod/secrets Bearer t0ken"}
    values = [value for secret in made.values() for value in secret.values()]
    assert not any(value in first.stdout + first.stderr for value in values)


def test_refused_create_fails_job_with_status(api: Api, tmp_path: Path) -> None:
    api.refuse = True
    ran = run(api, tmp_path)
    assert ran.returncode != 0
    assert "creating shop-mysql failed: the API server responded 403" in ran.stderr


def test_role_allows_only_create() -> None:
    roles = [o for o in secrets.objects(SHOP, WANTED) if o["kind"] == "Role"]
    assert [rule for role in roles for rule in role["rules"]] == [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}
    ]


def test_job_name_follows_list_of_secrets(tmp_path: Path) -> None:
    def rendered(wanted: tuple[Generated, ...], folder: str) -> list[dict[str, Any]]:
        trees = secrets.objects(SHOP, wanted)
        objects = [Templated(secrets.FILE, tree) for tree in trees]
        made = chart.files(ABOUT, objects, notes=NOTES, head="")
        found = helm.template(helm.write(tmp_path / folder, made))
        key = lambda item: item["kind"]  # noqa: E731
        assert sorted(helm.without_chart_labels(found), key=key) == sorted(
            resolve(trees, SCOPES), key=key
        )
        return found

    def job(found: list[dict[str, Any]]) -> str:
        return next(o["metadata"]["name"] for o in found if o["kind"] == "Job")

    once, again = rendered(WANTED, "a"), rendered(WANTED, "b")
    assert once == again
    assert job(once) != job(rendered(WANTED[:1], "c"))
    assert secrets.objects(SHOP, ()) == []
    assert SCOPES[Scope.NAMESPACE] == "prod"
