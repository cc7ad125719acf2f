"""What a test needs from the machine.

`require("docker")` skips the test and says what is missing; when LAPWING_TEST_REQUIRE names the
part (`LAPWING_TEST_REQUIRE=docker,mongodb`), it fails instead, so CI cannot pass by skipping.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lapwing.agent import cgroups
from lapwing.system import process


def _program(*names: str) -> Callable[[], str | None]:
    return lambda: next((path for n in names if (path := shutil.which(n))), None)


def _tmpfs() -> str | None:
    """Whether a small disk can be mounted: by root, where the kernel lets it."""
    if os.geteuid() != 0:
        return None
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "lapwing-test", folder]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            return None
        subprocess.run(["umount", folder], check=True)
    return "tmpfs"


def _setpriv() -> str | None:
    """Whether a command can be run as another user, or without the capabilities of root."""
    found = shutil.which("setpriv")
    if found is None or os.geteuid() != 0:
        return None
    other = [found, "--reuid=65534", "--bounding-set=-all", "--inh-caps=-all", "true"]
    return None if subprocess.run(other, capture_output=True, check=False).returncode else found


def _journald() -> str | None:
    """The journal of systemd, which root can start in a mount namespace."""
    program = Path("/lib/systemd/systemd-journald")
    if os.geteuid() != 0 or not program.exists() or not shutil.which("journalctl"):
        return None
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return str(program) if done.returncode == 0 else None


def _memory_cgroup() -> str | None:
    """The folder in which groups of processes with limited memory can be made: by root, where the
    control groups, of version 1 or 2, are writable."""
    for root in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        probe = root / f"lapwing-test-{os.getpid()}"
        try:
            probe.mkdir()
        except OSError:
            continue
        limited = any((probe / n).exists() for n in ("memory.limit_in_bytes", "memory.max"))
        probe.rmdir()
        if limited:
            return str(root)
    return None


def _cgroup() -> str | None:
    """The line of a process in a control group that the agent can make for it: as root, or where
    one is delegated, if the file system is writable."""
    mark = f"/needs-{os.getpid()}|a/b/c/d/0"
    arguments = cgroups.command(mark, ("cat", "/proc/self/cgroup"))
    said = subprocess.run(arguments, capture_output=True, text=True, check=False).stdout
    cgroups.remove(mark)
    return next((line for line in said.splitlines() if line.endswith("/a:b:c:d:0")), None)


def _terraform_schemas() -> str | None:
    """The folder that `make test-terraform` makes: the published schemas of the real providers,
    served to Terraform, and checkov. It is not made by other test commands: it takes minutes."""
    folder = os.environ.get("LAPWING_TEST_TERRAFORM")
    return folder if folder and Path(folder).is_dir() else None


def _shared(name: str) -> Callable[[], str | None]:
    """What a script in `.ci` fetches: a published description that we are held to."""
    path = Path("/usr/local/share", name)
    return lambda: str(path) if path.exists() else None


def _validator(name: str) -> Callable[[], str | None]:
    """A program or folder that `.ci/install-kubernetes-validators` makes."""
    default = Path(__file__).parents[1] / ".venv" / "kubernetes"
    path = Path(os.environ.get("LAPWING_TEST_KUBERNETES", default)) / name
    return lambda: str(path) if path.exists() else None


def _cluster() -> str | None:
    """The folder of `.ci/install-cluster`, which `make test-cluster` names, where etcd is there."""
    folder = os.environ.get("LAPWING_TEST_CLUSTER")
    return (
        folder if folder and (Path(folder) / "stamp").is_file() and shutil.which("etcd") else None
    )


def _node_parts() -> str | None:
    """The same folder with the parts of a real node (`.ci/install-node`).

    A real node needs root and cgroup v1.
    """
    folder, groups = _cluster(), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    is_ready = folder is not None and (Path(folder) / "node-stamp").is_file()
    return folder if is_ready and os.geteuid() == 0 and groups.exists() else None


def _mongosh() -> str | None:
    """The folder of MongoDB's shell (`.ci/install-mongosh`): modules of Node.js."""
    folder = Path(__file__).parents[1] / ".venv/mongosh/node_modules"
    return str(folder) if folder.is_dir() else None


def _docker() -> str | None:
    """Docker's engine, which tests start themselves: that takes root, and the command beside it."""
    return shutil.which("dockerd") if os.geteuid() == 0 and shutil.which("docker") else None


def _buildkit() -> str | None:
    """A docker command that builds by BuildKit: with buildx, or of a version that includes it."""
    names = [str(Path(folder, "docker")) for folder in os.get_exec_path()]
    for name in filter(shutil.which, names if _docker() else ()):
        asked = subprocess.run([name, "buildx", "version"], capture_output=True, check=False)
        version = subprocess.run([name, "--version"], capture_output=True, text=True, check=False)
        if asked.returncode == 0 or " version 20." in version.stdout:
            return name
    return None


def _podman() -> str | None:
    """Podman, which the tests call through Docker's command."""
    return shutil.which("podman") if os.geteuid() == 0 and shutil.which("docker") else None


def _server() -> str | None:
    """The folder of `.ci/install-server`, where its namespaces can be made: by root."""
    folder = Path(os.environ.get("LAPWING_TEST_SERVER", Path(__file__).parents[1] / ".venv/server"))
    if os.geteuid() != 0 or not (folder / "root").is_dir() or not shutil.which("ssh"):
        return None
    mount = "mount -t overlay overlay -o lowerdir=/usr:/etc /mnt && mount -t cgroup"
    mount += " -o none,name=systemd cgroup /mnt || mount -t cgroup2 cgroup2 /mnt"
    spaces = ["unshare", "--fork", "--pid", "--mount", "--net", "--cgroup", "sh", "-c", mount]
    done = subprocess.run(spaces, capture_output=True, check=False)
    return str(folder) if done.returncode == 0 else None


def _sigstore() -> str | None:
    """The folder of `.ci/install-sigstore`."""
    folder = Path(__file__).parents[1] / ".venv/sigstore"
    return str(folder) if (folder / "rekor-server").exists() else None


def _mysql() -> str | None:
    """MySQL itself with its tools; MariaDB has programs of the same names."""
    found = shutil.which("mysqld")
    if found is None or not all(map(shutil.which, ("mysql", "mysqldump"))):
        return None
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    return found if said and "MariaDB" not in said else None


def _mysql_root() -> str | None:
    """The root file system of `.ci/install-mysql`."""
    folder = Path(__file__).parents[1] / ".venv/mysql/root"
    return str(folder) if folder.is_dir() else None


def _postgres_tools() -> str | None:
    """The folder of PostgreSQL's programs, which Debian does not put on the PATH."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else Path("/usr/lib/postgresql").glob("*/bin")
    return next((str(p) for p in folders if (p / "initdb").exists()), None)


PARTS: dict[str, Callable[[], str | None]] = {
    "busybox": _program("busybox"),
    "curl": _program("curl"),
    "docker": _docker,
    "buildkit": _buildkit,
    "podman": _podman,
    "fc-match": _program("fc-match"),
    "node": _program("node"),
    "bun": _program("bun"),
    "chromium": _program("chromium", "chromium-browser", "google-chrome"),
    "mongodb": _program("mongod", "ferretdb"),
    "redis": _program("valkey-server", "redis-server"),
    "npm": _program("npm"),
    "cluster": _cluster,
    "node-parts": _node_parts,
    "kubectl": _program("kubectl"),
    "terraform": _program("terraform", "tofu"),
    "terraform-schemas": _terraform_schemas,
    "tmpfs": _tmpfs,
    "server": _server,
    "setpriv": _setpriv,
    "journald": _journald,
    "pdeathsig": process._setpriv,
    "memory-cgroup": _memory_cgroup,
    "cgroup": _cgroup,
    "kubeconform": _validator("kubeconform"),
    "kube-score": _validator("kube-score"),
    "checkov": _validator("checkov/bin/checkov"),
    "hadolint": _validator("checkov/bin/hadolint"),
    "kubernetes-schemas": _validator("schemas"),
    "policy-schemas": _validator("schemas/kyverno.io"),
    "mysql": _program("mysqld"),
    "mysql-tools": _mysql,
    "mysql-root": _mysql_root,
    "postgres": _program("postgres"),
    "postgres-tools": _postgres_tools,
    "rclone": _program("rclone"),
    "mongo-tools": _program("mongodump"),
    "mongosh": _mongosh,
    "pebble": _program("pebble"),
    "pebble-challtestsrv": _program("pebble-challtestsrv"),
    "versitygw": _program("versitygw"),
    "gpg": _program("gpg"),
    "ssh-keygen": _program("ssh-keygen"),
    "registry": _program("docker-registry"),
    "oci-registry": _program("oci-registry"),
    "helm": _program("helm"),
    "gitea": _program("gitea"),
    "github-openapi": _shared("github-openapi/api.github.com.json"),
    "cyclonedx-schema": _shared("cyclonedx-schema"),
    "actionlint": _program("actionlint"),
    "buildah": _program("buildah"),
    "cosign": _program("cosign"),
    "sigstore": _sigstore,
    "trivy": _program("trivy"),
    "grype": _program("grype"),
}


def require(part: str) -> str:
    """The program for a part, by its path; skips the test if there is none, or fails if the part
    is required."""
    found = PARTS[part]()
    if found:
        return found
    message = f"needs {part}, which is not on this machine"
    if part in os.environ.get("LAPWING_TEST_REQUIRE", "").split(","):
        pytest.fail(message + ", and LAPWING_TEST_REQUIRE asks for it")
    pytest.skip(message)
