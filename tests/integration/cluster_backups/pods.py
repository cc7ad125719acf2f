"""The pod of backups of a rendered stack: its containers run as processes with real servers."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from lapwing.agent.backup_manifest import Manifest, Part
from lapwing.kubernetes.backups import changed_container, script
from lapwing.plan.names import secret_part
from lapwing.render.kubernetes import backup, render
from lapwing.stack.load import load
from tests.buckets import ACCESS_KEY, SECRET_KEY
from tests.cluster.control_plane import wait_until
from tests.needs import require

PASSWORD = 'not "simple" \\ #at all'
STACK = """\
stack: shop
services:
  web:
    image: "shop/web:v1"
    route: /
    needs: [@NAME@]
    migrate: {run: migrate, mode: offline}
resources: {@NAME@: {kind: @KIND@}}
environments:
  production:
    target: kubernetes
    backup: {every: daily, keep: 2, to: "@TO@", endpoint: "@ENDPOINT@"}
"""
USER = 65534
"""A user that exists here, as the user of the images exists there: initdb needs its name."""


class Pods:
    """Runs the containers of the pod of backups of a stack with one database."""

    def __init__(
        self, folder: Path, kind: str, to: str, endpoint: str, port: int, name: str = "store"
    ) -> None:
        text = STACK.replace("@KIND@", kind).replace("@TO@", to).replace("@NAME@", name)
        text = text.replace("@ENDPOINT@", endpoint) if endpoint else text.replace(
            ', endpoint: "@ENDPOINT@"', ""
        )  # fmt: skip
        (folder / "lapwing.yaml").write_text(text)
        loaded = load(folder / "lapwing.yaml", "production")
        self.objects = render.objects(render.prepare(loaded))
        [job] = [o for o in self.objects if o["kind"] == "CronJob"]
        self.spec = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        self.folder, self.port = folder, port
        self.scratch = folder / "scratch"

    def process(self, container: dict[str, Any], pod: str = "scratch") -> tuple[int, str]:
        """Run a container of a pod, and return its status and its log."""
        environ = {e["name"]: e.get("value") or self._secret(e) for e in container["env"]}
        environ |= {"SCRATCH": str(self.folder / pod), "HOME": str(self.folder / "tmp")}
        if "HOST" in environ:
            environ |= {"HOST": "127.0.0.1", "PORT": str(self.port)}
        environ["PATH"] = self._busybox() if "TARGET" in environ else os.environ["PATH"]
        environ["TARGET"] = environ.get("TARGET", "").replace(backup.CLAIM, f"{self.folder}/claim")
        for folder in (pod, "tmp", "claim"):
            (self.folder / folder).mkdir(exist_ok=True)
            shutil.chown(self.folder / folder, USER, USER)
        [_, *arguments] = container["command"]
        shell = shutil.which("sh", path=environ["PATH"])
        assert shell is not None
        done = subprocess.run(
            as_user(shell, *arguments), env=environ, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout

    def run(self, container: dict[str, Any], command: str = "", **changed: str) -> str:
        """Run a container, with other variables or another script, and return its log."""
        status, log = self.process(changed_container(container, command, **changed))
        if status:
            raise RuntimeError(log)
        return log

    def _busybox(self) -> str:
        """A folder with the programs of the image of rclone: those of BusyBox, and rclone."""
        folder = self.folder / "image"
        if not folder.exists():
            folder.mkdir()
            for name in subprocess.check_output([require("busybox"), "--list"], text=True).split():
                (folder / name).symlink_to(require("busybox"))
            (folder / "rclone").symlink_to(require("rclone"))
        return str(folder)

    @staticmethod
    def _secret(variable: dict[str, Any]) -> str:
        name = variable["valueFrom"]["secretKeyRef"]["name"]
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        values = {f"shop-{secret_part(k)}": v for k, v in keys.items()}
        return values.get(name, PASSWORD)

    def back_up(self, **changed: str) -> Manifest:
        shutil.rmtree(self.scratch, ignore_errors=True)
        [dump] = self.spec["initContainers"]
        self.run(dump)
        return self.store(**changed)

    def store(self, **changed: str) -> Manifest:
        [store] = self.spec["containers"]
        return msgspec.json.decode(self.run(store, **changed).splitlines()[-1], type=Manifest)

    def list(self) -> list[Manifest]:
        [store] = self.spec["containers"]
        lines = self.run(store, script("list")).splitlines()
        return [msgspec.json.decode(line, type=Manifest) for line in lines if line[0] == "{"]

    def fetch(self, made: Manifest) -> Part:
        shutil.rmtree(self.scratch, ignore_errors=True)
        [store], [part] = self.spec["containers"], made.parts
        self.run(store, script("fetch"), BACKUP=made.id, NAME=part.name, SHA256=part.sha256)
        return part

    def load(self, made: Manifest, **changed: str) -> str:
        part, [dump] = self.fetch(made), self.spec["initContainers"]
        return self.run(dump, script(f"load-{part.kind}"), **changed).splitlines()[-1]

    def rehearse(self, made: Manifest) -> str:
        part, [dump] = self.fetch(made), self.spec["initContainers"]
        return self.run(dump, script(part.kind)).splitlines()[-1]


@contextlib.contextmanager
def serve(*command: str, answers: list[str]) -> Iterator[None]:
    """Run a server until the end of the block; it has started when `answers` succeeds."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(
                lambda: subprocess.run(answers, capture_output=True, check=False).returncode == 0,
                command[0],
            )
            yield
        finally:
            process.terminate()


def as_user(*command: str) -> list[str]:
    return [require("setpriv"), f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *command]
