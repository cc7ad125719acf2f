"""A real Gitea on a free port, with its embedded SQLite, an owner and a token.

It serves git over HTTP, the REST API and a registry of images, all under one address.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.installation import free_port

PATIENCE = 120.0
OWNER, PASSWORD = "Acme", "correct horse"
SCOPES = "write:repository,write:package,write:user,write:organization,write:admin"

CONFIG = """\
RUN_MODE = prod
{user}
[server]
PROTOCOL = http
HTTP_ADDR = 127.0.0.1
HTTP_PORT = {port}
ROOT_URL = http://127.0.0.1:{port}/
DISABLE_SSH = true
STATIC_ROOT_PATH = {share}
OFFLINE_MODE = true
[database]
DB_TYPE = sqlite3
PATH = {root}/gitea.db
[security]
INSTALL_LOCK = true
SECRET_KEY = a-key-of-a-test
PASSWORD_HASH_ALGO = pbkdf2_v2
[repository]
ROOT = {root}/repositories
DEFAULT_BRANCH = main
[service]
DISABLE_REGISTRATION = true
[cron]
ENABLED = false
[log]
MODE = console
LEVEL = Warn
"""


@dataclass
class Gitea:
    """A Gitea at `address`."""

    address: str
    token: str
    client: httpx.Client = field(repr=False)

    @property
    def host(self) -> str:
        return self.address.removeprefix("http://")

    def api(self, method: str, path: str, **given: Any) -> Any:
        """Call the API with the owner's token; it has to succeed."""
        answer = self.client.request(method, f"{self.address}/api/v1{path}", **given)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def status(self, method: str, path: str, **given: Any) -> int:
        """The status of a call that may fail."""
        url = f"{self.address}/api/v1{path}"
        return self.client.request(method, url, **given).status_code

    def repository(self, name: str) -> str:
        """Make an empty repository of the owner's; its address for git."""
        self.api("POST", "/user/repos", json={"name": name, "default_branch": "main"})
        return f"{self.address}/{OWNER}/{name}.git"

    def new_token(self, name: str, *scopes: str) -> str:
        """Another token."""
        made = self.client.post(
            f"{self.address}/api/v1/users/{OWNER}/tokens",
            auth=(OWNER, PASSWORD),
            json={"name": name, "scopes": list(scopes)},
            headers={"Authorization": ""},
        )
        assert made.status_code == 201, made.text
        token: str = made.json()["sha1"]
        return token

    def drop_token(self, name: str) -> None:
        """A token that is good no more."""
        answer = self.client.delete(
            f"{self.address}/api/v1/users/{OWNER}/tokens/{name}", auth=(OWNER, PASSWORD)
        )
        assert answer.status_code == 204, answer.text


@contextmanager
def gitea(program: str, root: Path) -> Iterator[Gitea]:
    """A Gitea for as long as the block runs. Its files are below `root`."""
    port = free_port()
    share = Path(program).resolve().parent.parent / "share" / "gitea"
    config = root / "custom" / "conf" / "app.ini"
    config.parent.mkdir(parents=True)
    user = f"RUN_USER = {_user()}"
    config.write_text(CONFIG.format(user=user, port=port, share=share, root=root))
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        "USER": _user(),
        "GITEA_WORK_DIR": str(root),
        "GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT": "true",
    }

    def run(*arguments: str) -> str:
        command = [program, *arguments, "--config", str(config)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("migrate")
    account = ("--username", OWNER, "--password", PASSWORD, "--email", "a@example.com")
    run("admin", "user", "create", "--admin", "--must-change-password=false", *account)
    scopes = ("--scopes", SCOPES, "--raw")
    said = run("admin", "user", "generate-access-token", "--username", OWNER, *scopes)
    token = said.split()[-1]
    with (root / "web.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "web", "--config", str(config)], env=environ, stdout=log, stderr=log
        )
    headers = {"Authorization": f"token {token}"}
    client = httpx.Client(trust_env=False, timeout=60, headers=headers)
    try:
        served = Gitea(f"http://127.0.0.1:{port}", token, client)
        _wait(served, process, root / "web.log")
        yield served
    finally:
        client.close()
        process.terminate()
        process.wait()


def _wait(served: Gitea, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            if served.client.get(f"{served.address}/api/v1/version").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"Gitea does not serve: {log.read_text()}")


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name
