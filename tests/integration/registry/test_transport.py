"""TLS, plain HTTP, logins over it, and proxies. Some tests pretend that this machine is remote."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lapwing.cli.main import run
from lapwing.errors import RegistryError, RegistryLoginError
from lapwing.registry.client import RegistryClient
from lapwing.registry.copy import CopyOptions
from lapwing.registry.registry import HostOptions
from lapwing.registry.transport import proxy_for
from lapwing.stack import image
from tests.faulty import Login, Proxy
from tests.integration.registry.conftest import SOON, Copier, Quiet
from tests.needs import require
from tests.registries import Server, docker_registry

Behind = Callable[..., Proxy]


@pytest.fixture
def remote_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat no host as loopback."""
    monkeypatch.setattr("lapwing.registry.registry.is_loopback", lambda _: False)


def certificate(folder: Path, *hosts: str) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and other hosts, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    names += [x509.DNSName(host) for host in ("localhost", *hosts)]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "tls.crt", folder / "tls.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


@contextmanager
def tls_registry(folder: Path) -> Iterator[tuple[Server, Path]]:
    """A registry with TLS, and its certificate."""
    crt, key = certificate(folder)
    tls = f"  tls: {{certificate: {json.dumps(str(crt))}, key: {json.dumps(str(key))}}}\n"
    with docker_registry(require("registry"), folder / "registry", tls) as server:
        server.client.close()
        context = ssl.create_default_context(cafile=str(crt))
        server.client = httpx.Client(trust_env=False, verify=context)
        server.scheme = "https"
        yield server, crt


@pytest.mark.usefixtures("remote_hosts")
async def test_copy_over_tls(tmp_path: Path, name: str, copy: Copier) -> None:
    with tls_registry(tmp_path) as (server, crt):
        server.push_image(name, "1", [os.urandom(3_000_000), os.urandom(10)])

        with pytest.raises(RegistryError) as refused:
            await copy(f"{server.host}/{name}:1", f"{server.host}/{name}-too")
        assert "SSL_CERT_FILE" in (refused.value.hint or "")

        environ = {**copy.settings.environ, "SSL_CERT_FILE": str(crt)}
        copy.settings = replace(copy.settings, environ=environ)
        # By its other name it is another registry, so the layers go through us.
        other = server.host.replace("127.0.0.1", "localhost")
        done = await copy(f"{server.host}/{name}:1", f"{other}/{name}-too")
        assert server.whole(f"{name}-too", "1") == done.root.digest
        assert done.blobs == {"copied": 3, "mounted": 0, "present": 0}


@pytest.mark.usefixtures("remote_hosts")
async def test_error_for_registry_without_tls_names_plain_http(
    source: Server, name: str, copy: Copier
) -> None:
    with pytest.raises(RegistryError) as refused:
        await copy(f"{source.host}/{name}:1", f"{source.host}/{name}-too")
    assert "--plain-http" in (refused.value.hint or "")


def test_registry_with_tls_on_this_machine(
    tmp_path: Path,
    target: Server,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The authority is trusted for the one side; the other is plain HTTP."""
    monkeypatch.setenv("LAPWING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with tls_registry(tmp_path) as (server, crt):
        pushed = server.push_image(name, "1", [os.urandom(1000)])
        tls, plain = f"{server.host}/{name}", f"{target.host}/{name}"
        assert run(["image", "copy", f"{tls}:1", f"{plain}:2"]) == 1
        assert "--src-ca" in capsys.readouterr().err

        assert run(["image", "copy", f"{tls}:1", f"{plain}:2", "--src-ca", str(crt)]) == 0
        assert target.whole(name, "2") == pushed["digest"]
        assert run(["image", "copy", f"{plain}:2", f"{tls}:3", "--dst-ca", str(crt)]) == 0
        assert server.whole(name, "3") == pushed["digest"]


@pytest.mark.usefixtures("remote_hosts")
@pytest.mark.parametrize("scheme", ["basic", "bearer"])
async def test_login_is_sent_over_plain_http_only_to_named_registry(
    source: Server,
    name: str,
    docker_folder: Path,
    copy: Copier,
    behind: Behind,
    scheme: Literal["basic", "bearer"],
) -> None:
    source.push_image(name, "1", [b"layer"])
    front = behind(source, Login(scheme))
    auth = base64.b64encode(b"robot:s3cret-pass").decode()
    config = {"auths": {front.host: {"auth": auth}}}
    (docker_folder / "config.json").write_text(json.dumps(config))
    reference = image.parse(f"{front.host}/{name}:1")

    async with RegistryClient(copy.settings, plain_http=True, retry=SOON) as client:
        with pytest.raises(RegistryLoginError, match="the password was not sent"):
            await client.digest(reference)
    assert front.seen
    assert not any("Authorization" in seen.headers for seen in front.seen)

    named = {front.host: HostOptions(plain_http=True)}
    async with RegistryClient(copy.settings, hosts=named, retry=SOON) as client:
        assert await client.digest(reference)


async def test_plain_http_never_applies_to_docker_hub(
    source: Server, copy: Copier, behind: Behind
) -> None:
    front = behind(source)
    environ = {**copy.settings.environ, "ALL_PROXY": f"http://{front.host}"}
    settings = replace(copy.settings, environ=environ)
    async with RegistryClient(settings, plain_http=True, retry=SOON) as client:
        with pytest.raises(RegistryError, match=r"Cannot connect to registry-1\.docker\.io"):
            await client.digest(image.parse("redis:8"))
    assert not any("http://" in seen.path for seen in front.seen)


async def test_plain_http_through_proxy(
    source: Server, target: Server, name: str, copy: Copier, behind: Behind
) -> None:
    pushed = source.push_image(name, "1", [os.urandom(1000)])
    front = behind(source)
    environ = {
        **copy.settings.environ,
        "HTTP_PROXY": f"http://{front.host}",
        "NO_PROXY": "127.0.0.1",
    }
    settings = replace(copy.settings, environ=environ)
    named = {"registry.test": HostOptions(plain_http=True)}
    async with RegistryClient(settings, hosts=named, retry=SOON) as client:
        await client.copy(
            image.parse(f"registry.test/{name}:1"),
            image.parse(f"{target.host}/{name}"),
            ["1"],
            CopyOptions(),
            Quiet(),
        )
    assert target.whole(name, "1") == pushed["digest"]
    assert all(s.path.startswith("http://registry.test/v2/") for s in front.seen)


@pytest.mark.parametrize(
    ("environ", "scheme", "host", "proxy"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, "https", "r.example", "http://p:1"),
        ({"https_proxy": "http://p:1"}, "https", "r.example", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http", "r.example", None),
        ({"ALL_PROXY": "http://p:1"}, "http", "r.example", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example"}, "https", "r.example", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "https", "r.example", None),
        ({"HTTPS_PROXY": ""}, "https", "r.example", None),
        ({}, "https", "r.example", None),
    ],
)
def test_proxy_selection(
    environ: dict[str, str], scheme: str, host: str, proxy: str | None
) -> None:
    assert proxy_for(environ, scheme, host) == proxy
