"""A private Sigstore instance: Fulcio, a certificate log, Rekor and a timestamp authority, and the
forge whose jobs get identity tokens.

The services are the real ones (`.ci/install-sigstore`); one instance at a time, because the
timestamp authority has a fixed port for its metrics. Only the forge is ours: an OpenID Connect
issuer that gives tokens as the runners of GitHub do (ACTIONS_ID_TOKEN_REQUEST_URL) or as GitLab
does (SIGSTORE_ID_TOKEN).

Sources: GitHub's "OpenID Connect reference"; sigstore_trustroot.proto.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tests.installation import free_port

WORKFLOW = "team/shop/.github/workflows/lapwing.yaml"
START = "2020-01-01T00:00:00Z"
REQUEST_TOKEN = "request-token-of-the-job"
PATIENCE_S = 60.0


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Forge:
    """An OpenID Connect issuer with one RSA key, for the jobs of one repository."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        forge = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                found = forge.respond(url.path, parse_qs(url.query), self.headers["Authorization"])
                self.send_response(200 if found is not None else 403)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(found or {"error": "forbidden"}).encode())

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def respond(self, path: str, query: dict[str, list[str]], login: str | None) -> Any:
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        if path == "/keys":
            numbers = self._key.public_key().public_numbers()
            n, e = (_encode(x.to_bytes((x.bit_length() + 7) // 8)) for x in (numbers.n, numbers.e))
            return {
                "keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "n": n, "e": e}]
            }
        if path.startswith("/job/") and login == f"bearer {REQUEST_TOKEN}":
            branch = path.removeprefix("/job/")
            return {"value": self.token(branch, query["audience"][0])}
        return None

    def token(self, branch: str, audience: str = "sigstore") -> str:
        """The identity token of a job on a branch, with the claims of GitHub's."""
        now, sha = int(time.time()), "a" * 40
        claims = {
            "iss": self.url,
            "aud": audience,
            "sub": f"repo:team/shop:ref:refs/heads/{branch}",
            "iat": now,
            "nbf": now - 5,
            "exp": now + 600,
            "job_workflow_ref": f"{WORKFLOW}@refs/heads/{branch}",
            "job_workflow_sha": sha,
            "workflow_ref": f"{WORKFLOW}@refs/heads/{branch}",
            "workflow_sha": sha,
            "workflow": "lapwing",
            "sha": sha,
            "ref": f"refs/heads/{branch}",
            "event_name": "push",
            "repository": "team/shop",
            "repository_id": "1",
            "repository_owner": "team",
            "repository_owner_id": "2",
            "repository_visibility": "private",
            "runner_environment": "github-hosted",
            "run_id": "3",
            "run_attempt": "1",
        }
        head = {"alg": "RS256", "typ": "JWT", "kid": "1"}
        text = ".".join(_encode(json.dumps(each).encode()) for each in (head, claims))
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{_encode(signature)}"

    def github_job(self, branch: str = "main") -> dict[str, str]:
        """The variables of a job of GitHub Actions with `id-token: write`."""
        return {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/job/{branch}?api-version=2",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": REQUEST_TOKEN,
        }

    def gitlab_job(self, branch: str = "main") -> dict[str, str]:
        """The variables of a job of GitLab with `id_tokens: {SIGSTORE_ID_TOKEN: ...}`."""
        return {"GITLAB_CI": "true", "SIGSTORE_ID_TOKEN": self.token(branch)}

    @staticmethod
    def identity(branch: str = "main") -> str:
        """The identity that Fulcio writes into the certificate of a job."""
        return f"https://github.com/{WORKFLOW}@refs/heads/{branch}"


@dataclass
class Sigstore:
    """The instance: the files with its trusted root and its addresses, and its processes."""

    forge: Forge
    trusted_root: Path
    signing_config: Path
    log: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def signing(self, branch: str = "main") -> str:
        """The section of a stack file; the files are named by absolute paths."""
        return (
            f"signing:\n  keyless:\n    identity: {self.forge.identity(branch)}\n"
            f"    issuer: {self.forge.url}\n    trusted_root: {self.trusted_root}\n"
            f"    signing_config: {self.signing_config}\n"
        )

    def trusted_root_of_another_authority(self) -> str:
        """The trusted root with the certificate of the timestamp authority in place of Fulcio's."""
        root = json.loads(self.trusted_root.read_text())
        other = root["timestampAuthorities"][0]["certChain"]["certificates"][-1:]
        root["certificateAuthorities"][0]["certChain"]["certificates"] = other
        return json.dumps(root)

    def entries(self) -> int:
        """The size of the transparency log, as its newest checkpoint states it."""
        checkpoint = self.log / "checkpoint"
        return int(checkpoint.read_text().splitlines()[1]) if checkpoint.exists() else 0


@contextmanager
def run_sigstore(programs: Path, folder: Path) -> Iterator[Sigstore]:
    """Start an instance in a folder with the programs of `.ci/install-sigstore`."""
    ports = {name: free_port() for name in ("fulcio", "ct", "rekor", "tsa")}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    forge = Forge()
    keys = {name: _write_key(folder / f"{name}.pem") for name in ("ct", "rekor")}
    issuer = {"IssuerURL": forge.url, "ClientID": "sigstore", "Type": "github-workflow"}
    (folder / "fulcio.json").write_text(json.dumps({"OIDCIssuers": {forge.url: issuer}}))
    instance = Sigstore(forge, folder / "root.json", folder / "config.json", folder / "rekor")
    with ExitStack() as stack:
        stack.callback(forge.server.server_close)
        stack.callback(forge.server.shutdown)

        def start(name: str, program: str, *arguments: str) -> None:
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            command = [str(programs / program), *arguments]
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
            instance.processes[name] = process
            stack.callback(_end, process)

        # Start the authority first: the log accepts only certificates of its root.
        start("fulcio", "fulcio", "serve", "--ca=ephemeralca", "--config-path=fulcio.json",
              f"--ct-log-url={urls['ct']}", "--host=127.0.0.1", f"--port={ports['fulcio']}",
              "--grpc-host=127.0.0.1", f"--grpc-port={free_port()}",
              f"--metrics-port={free_port()}",
              f"--legacy-unix-domain-socket={folder / 'fulcio.sock'}")  # fmt: skip
        authority = _get(f"{urls['fulcio']}/api/v1/rootCert", instance)
        (folder / "fulcio-root.pem").write_bytes(authority)
        start("ct", "tesseract", f"--http_endpoint=127.0.0.1:{ports['ct']}",
              "--private_key=ct.pem", "--origin=ct.test", "--storage_dir=ct",
              "--roots_pem_file=fulcio-root.pem")  # fmt: skip
        start("rekor", "rekor-server", "serve", "--hostname=rekor.test", "--storage-dir=rekor",
              "--signer-filepath=rekor.pem", f"--http-port={ports['rekor']}",
              f"--grpc-port={free_port()}", f"--http-metrics-port={free_port()}",
              "--checkpoint-interval=1s", "--batch-max-age=100ms")  # fmt: skip
        start("tsa", "timestamp-server", "serve", "--host=127.0.0.1", f"--port={ports['tsa']}",
              "--timestamp-signer=memory", "--disable-ntp-monitoring")  # fmt: skip
        stamps = _get(f"{urls['tsa']}/api/v1/timestamp/certchain", instance)
        _get(f"{urls['ct']}/ct/v1/get-roots", instance)
        _get(f"{urls['rekor']}/healthz", instance)
        instance.trusted_root.write_text(json.dumps(_trusted_root(urls, keys, authority, stamps)))
        instance.signing_config.write_text(json.dumps(_signing_config(urls)))
        yield instance


def _write_key(path: Path) -> bytes:
    """Write an ECDSA P-256 key; return its public key in DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    kind = serialization.PrivateFormat.TraditionalOpenSSL  # TesseraCT reads no other.
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())
    )
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _get(url: str, instance: Sigstore) -> bytes:
    """Read a URL as soon as it responds."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            response = httpx.get(url, trust_env=False, timeout=5)
            if response.status_code == 200:
                return response.content
        except httpx.TransportError:
            pass
        ended = {n: p.poll() for n, p in instance.processes.items() if p.poll() is not None}
        assert not ended, f"ended: {ended}; see the logs in {instance.trusted_root.parent}"
        assert time.monotonic() < deadline, f"{url} does not respond"
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _standard(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _trusted_root(
    urls: dict[str, str], keys: dict[str, bytes], authority: bytes, stamps: bytes
) -> dict[str, Any]:
    valid = {"start": START}

    def log(name: str) -> dict[str, Any]:
        return {
            # cosign takes the name of the checkpoint's key from it.
            "baseUrl": "https://rekor.test" if name == "rekor" else urls[name],
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": _standard(keys[name]),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": valid,
            },
            "logId": {"keyId": _standard(hashlib.sha256(keys[name]).digest())},
        }

    def chain(name: str, pem: bytes) -> dict[str, Any]:
        certificates = x509.load_pem_x509_certificates(pem)
        encoded = [c.public_bytes(serialization.Encoding.DER) for c in certificates]
        return {
            "subject": {"organization": "test", "commonName": name},
            "uri": urls[name],
            "certChain": {"certificates": [{"rawBytes": _standard(each)} for each in encoded]},
            "validFor": valid,
        }

    return {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [log("rekor")],
        "certificateAuthorities": [chain("fulcio", authority)],
        "ctlogs": [log("ct")],
        "timestampAuthorities": [chain("tsa", stamps)],
    }


def _signing_config(urls: dict[str, str]) -> dict[str, Any]:
    def service(url: str, version: int) -> dict[str, Any]:
        start = {"start": START}
        return {"url": url, "majorApiVersion": version, "validFor": start, "operator": "test"}

    return {
        "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "caUrls": [service(urls["fulcio"], 1)],
        "rekorTlogUrls": [service(urls["rekor"], 2)],
        "rekorTlogConfig": {"selector": "ANY"},
        "tsaUrls": [service(f"{urls['tsa']}/api/v1/timestamp", 1)],
        "tsaConfig": {"selector": "ANY"},
    }
