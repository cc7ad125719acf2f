"""Check this machine and the state folder, and repair the desired state."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lapwing.commands.domain_check import check_domains
from lapwing.desired.recovery import restore_references
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import LapwingError
from lapwing.observed import agent, pull, status
from lapwing.observed.checks import CheckResult
from lapwing.plan import host_names
from lapwing.plan.model import Document
from lapwing.settings import Settings
from lapwing.system import home
from lapwing.targets import local_agent
from lapwing.targets.base import StatusReport

BOOT_LINK = Path("/etc/systemd/system/multi-user.target.wants/lapwing.service")
"""The symlink that enables the unit of a server (systemd.unit(5)); readable without D-Bus."""
MIGRATION = Path("/proc/sys/net/ipv4/tcp_migrate_req")
"""Whether the kernel moves connections in the accept queue of a closed socket to another socket of
the port. Source: docs.kernel.org, ip-sysctl."""
MIN_FREE_BYTES = 1024**3
"""Free space below which deployments are likely to fail."""


def examine(settings: Settings) -> Iterator[CheckResult]:
    """Check everything that Lapwing depends on."""
    yield _git()
    yield _program("Envoy", _envoy)
    yield _program("Caddy", _caddy)
    yield _program("uv", _uv)
    yield _home(settings.home)
    yield _space(settings.home)
    if not _existing(settings.home).is_dir():
        return  # Everything else is in this folder.
    yield _private(settings)
    alive = agent.is_running(settings.agent)
    yield _agent(settings, alive)
    if not alive:
        yield _port(settings)
    if settings.server:
        yield _boot()
        yield _replacement()
        yield from _problems(settings)
        documents = [document for _, document in _running(settings)]
        yield from check_domains(documents, settings.bind)
        yield from _untrusted(settings, documents)
    if active := _active(settings):
        yield _traffic(settings, active, alive)
    repository = DesiredRepository(settings.desired)
    problems = repository.verify()
    if not problems and (lost := _lost(repository, settings)):
        names = ", ".join(f"{d.stack}/{d.environment}" for d in lost)
        branch = "" if repository.head() else "there is no branch `main`; "
        problems = [f"{branch}{names} is running but not in the desired state"]
    yield CheckResult("desired state", not problems, "; ".join(problems[:3]) or "intact")


def repair(settings: Settings) -> list[str]:
    """Repair the desired-state repository and return what was done.

    References are restored from the commits. Documents of running environments that are missing are
    committed again. Only a repository that is damaged further is moved aside, and the running
    environments are committed to a new one.

    Raises LapwingError if it cannot be repaired.
    """
    repository = DesiredRepository(settings.desired)
    done = []
    with contextlib.suppress(LapwingError, OSError):
        done = [f"restored {name} from its commits" for name in restore_references(repository)]
    if not repository.verify():
        lost = _lost(repository, settings, by_commit=bool(done))
        for document in lost:
            newest = repository.newest(document.stack, document.environment)
            repository.commit(document, expected=newest)
        again = [f"committed the running state of {d.stack}/{d.environment} again" for d in lost]
        return done + again
    running = [document for _, document in _running(settings)]
    aside = repository.recover(running)
    done = [f"created a new desired-state repository with {len(running)} environments"]
    if aside is not None:
        done.append(f"moved the damaged one to {aside}")
    return done


def _lost(
    repository: DesiredRepository, settings: Settings, *, by_commit: bool = False
) -> list[Document]:
    """Return what is running but missing in the desired state.

    That is its environment or, `by_commit`, the commit that it was deployed by.
    """
    known, head = repository.environments(), repository.head() or ""
    return [
        d
        for commit, d in _running(settings)
        if d.services
        and (
            (d.stack, d.environment) not in known
            or (by_commit and not repository.is_descendant(head, commit))
        )
    ]


def _running(settings: Settings) -> list[tuple[str, Document]]:
    """Return the documents of the running environments, from the agent's state files.

    Each with the commit that it was deployed by.
    """
    found = []
    for path in sorted((settings.home / "environments").glob("*/*/state.json")):
        try:
            memory = msgspec.json.decode(path.read_bytes())
            if memory.get("document"):
                document = msgspec.convert(memory["document"], Document)
                found.append((str(memory.get("commit")), document))
        except (OSError, msgspec.MsgspecError):
            continue
    return found


def _agent(settings: Settings, alive: bool) -> CheckResult:
    """Check that the agent is running, or that there is nothing that it should supervise."""
    record = agent.read(settings.agent)
    if alive and record is not None:
        return CheckResult("agent", record.ready, f"process {record.pid}, port {record.port}")
    if record is not None and record.problem:
        return CheckResult("agent", False, f"not running: {record.problem}")
    if any(document.services or document.resources for _, document in _running(settings)):
        start = "systemctl start lapwing" if settings.server else "lapwing agent start"
        problem = f"not running: a replica that crashes is not restarted. Run `{start}`."
        return CheckResult("agent", False, problem)
    return CheckResult("agent", True, "not running; a deployment starts it")


def _active(settings: Settings) -> list[str]:
    """Return the environments in which a service has an active release."""
    seen = [found for _, found in status.read_all(settings.home) if StatusReport(found).running]
    return [f"{found.stack}/{found.environment}" for found in seen]


def _traffic(settings: Settings, active: list[str], alive: bool) -> CheckResult:
    """Check that Envoy forwards requests to the active services."""
    if local_agent.envoy_accepts(settings):
        port = local_agent.serving_port(settings)
        return CheckResult("traffic", True, f"Envoy accepts connections on port {port}")
    log = settings.logs / "envoy.log"
    next_step = f"see {log}" if alive else "run `lapwing agent start`"
    problem = f"Envoy is not running: no request reaches {', '.join(active)}; {next_step}"
    return CheckResult("traffic", False, problem)


def _problems(settings: Settings) -> Iterator[CheckResult]:
    """Yield what the agent reports of each environment, such as a certificate that is missing."""
    for _, found in status.read_all(settings.home):
        if found.problem:
            yield CheckResult(f"{found.stack}/{found.environment}", False, found.problem)
        if found.log_problem:
            yield CheckResult(f"{found.stack}/{found.environment}", None, found.log_problem)
    for stack, environment in pull.sources(settings):
        is_shown = status.read(settings.environment(stack, environment)) is not None
        if not is_shown and (problem := pull.state(settings, stack, environment).problem):
            yield CheckResult(f"{stack}/{environment}", False, problem)


def _untrusted(settings: Settings, documents: list[Document]) -> Iterator[CheckResult]:
    """Report environments whose certificate browsers refuse; a proxy in front may have another."""
    for document in documents if not settings.trusted_proxies else ():
        if (untrusted := host_names.describe_untrusted(document)) is not None:
            name = f"certificate of {document.stack}/{document.environment}"
            yield CheckResult(name, None, untrusted)


def _boot() -> CheckResult:
    """Check that systemd starts the agent of a server after a reboot."""
    if BOOT_LINK.exists():
        return CheckResult("reboot", True, f"{BOOT_LINK.name} starts at boot")
    problem = f"{BOOT_LINK.name} does not start at boot: run `lapwing server setup -e NAME`"
    return CheckResult("reboot", False, problem)


def _replacement() -> CheckResult:
    """Report whether connections may be reset when another Envoy takes over the ports."""
    seen = "may reset new connections: Linux 5.14 or newer can move them"
    with contextlib.suppress(OSError):
        enabled = MIGRATION.read_text() != "0\n"
        reset = "may reset new connections: set `sysctl net.ipv4.tcp_migrate_req=1`"
        seen = "resets no connection" if enabled else reset
    return CheckResult("Envoy upgrade", True, seen)


def _git() -> CheckResult:
    path = shutil.which("git")
    if path is None:
        return CheckResult("git", False, "not installed")
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return CheckResult("git", done.returncode == 0, done.stdout.strip())


def _program(name: str, find: object) -> CheckResult:
    assert callable(find)
    try:
        path = Path(find())
    except (LapwingError, ImportError, OSError) as error:
        return CheckResult(name, False, str(error))
    return CheckResult(name, os.access(path, os.X_OK), str(path))


def _envoy() -> Path:
    from lapwing.agent.proxy.instances import program

    return program()


def _caddy() -> Path:
    from lapwing.agent.caddy import program

    return program()


def _uv() -> str:
    from lapwing.build.python import uv

    return uv()


def _home(folder: Path) -> CheckResult:
    """Check that the state folder is one, and that files can be created in it."""
    problem = home.find_problem(folder)
    if problem is None:
        place = _existing(folder)
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            problem = f"no file can be created in {place}: {error.strerror or error}"
    return CheckResult("state folder", problem is None, problem or str(folder))


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _space(settings_home: Path) -> CheckResult:
    folder = _existing(settings_home)
    free = shutil.disk_usage(folder).free
    return CheckResult("disk", free > MIN_FREE_BYTES, f"{free / 1024**3:.1f} GiB free at {folder}")


def _private(settings: Settings) -> CheckResult:
    """Check that only the owner can read files with secrets."""
    files = [settings.secrets / "key", settings.certificates / "ca.key"]
    files += [*settings.secrets.glob("*/*.json"), settings.certificates / "server.pem"]
    open_ = [p for p in files if p.exists() and stat.S_IMODE(p.stat().st_mode) & 0o077]
    if open_:
        return CheckResult(
            "private files", False, f"other users can read {open_[0]}: run `chmod 600 {open_[0]}`"
        )
    return CheckResult("private files", True, "readable by their owner only")


def _port(settings: Settings) -> CheckResult:
    from lapwing.agent.proxy.bootstrap import addresses_for
    from lapwing.agent.proxy.sockets import check_port
    from lapwing.errors import ProxyError

    try:
        used = [
            check_port(address, settings.port, settings.home)
            for address in addresses_for(settings.bind)
        ]
    except ProxyError as error:
        return CheckResult("port", False, error.message)
    seen = "is used by Envoy of this LAPWING_HOME" if any(used) else "can be used"
    return CheckResult("port", True, f"{settings.port} {seen}")
