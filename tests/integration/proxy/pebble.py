"""Pebble, the ACME authority of Let's Encrypt for tests, with a DNS that sends every name here."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lapwing.system.x509 import create_authority, create_server
from tests.deployed import until
from tests.installation import free_port
from tests.needs import require


@dataclass(frozen=True)
class Authority:
    """`trusted` is the file that the certificate of its directory is checked with."""

    directory: str
    trusted: Path
    dns: str

    def set_address(self, host: str, address: str) -> None:
        """Let a name lead to another address."""
        body = json.dumps({"host": host, "addresses": [address]})
        subprocess.run(["curl", "-sf", "-d", body, f"{self.dns}/add-a"], check=True)


@contextlib.contextmanager
def pebble(folder: Path, http_port: int, **environ: str) -> Iterator[Authority]:
    """An authority that sends challenges to `http_port` of this machine."""
    folder.mkdir(parents=True)
    root = create_authority("Test", ["localhost"], 30)
    server = create_server("localhost", 30, ["localhost"], ["127.0.0.1"], root)
    (folder / "ca.pem").write_bytes(root.certificate_pem)
    (folder / "cert.pem").write_bytes(server.certificate_pem + root.certificate_pem)
    (folder / "key.pem").write_bytes(server.key_pem)
    port, management, dns, dns_management = (free_port() for _ in range(4))
    config = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(folder / "cert.pem"),
        "privateKey": str(folder / "key.pem"),
        "httpPort": http_port,
        "tlsPort": free_port(),
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        "domainBlocklist": ["blocked.example.com"],
        "retryAfter": {"authz": 1, "order": 1},
        "profiles": {"default": {"description": "", "validityPeriod": 7776000}},
    }
    (folder / "config.json").write_text(json.dumps({"pebble": config}))
    off = [f"-{name}" for name in ("http01", "https01", "tlsalpn01", "doh")]
    commands = [
        [require("pebble-challtestsrv"), *(w for o in off for w in (o, "")), "-dnsserver",
         f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{dns_management}",
         "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""],
        [require("pebble"), "-config", str(folder / "config.json"),
         "-dnsserver", f"127.0.0.1:{dns}"],
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("wb"))
        for command in commands:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=os.environ | {"PEBBLE_VA_NOSLEEP": "1"} | environ,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        found = Authority(
            f"https://localhost:{port}/dir", folder / "ca.pem", f"http://127.0.0.1:{dns_management}"
        )
        ask = ["curl", "-sf", "--cacert", str(found.trusted), found.directory]
        until(lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0)
        yield found
