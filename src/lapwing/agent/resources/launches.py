"""Start a resource's server: its folder, port, password, launch and URL.

Data is in `data/<stack>/<environment>/<resource>` and survives `lapwing down`. The port is chosen
once and kept beside the data, so the URL given to a service stays valid.

A server with new data requires a generated password, which is in the secret store and in the URL.
Data of an earlier version stays without one: its services run with a URL that has none.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lapwing.agent import logs, ports, processes
from lapwing.agent.processes import Launch, Owner
from lapwing.agent.resources import images, kinds
from lapwing.agent.resources.bind import variable
from lapwing.agent.state import ResourceProcess
from lapwing.desired.secrets import SecretStore
from lapwing.errors import ResourceError, SecretError
from lapwing.plan.model import Resource, ResourceContainer, ResourceKind
from lapwing.settings import Settings
from lapwing.system.files import remove_tree, write_atomic

LOGIN = "login"
"""The file with the version of the password that a server requires, beside its data."""
CONFIGURATION = "server.conf"
ROOT_LOGIN = "root-login"
"""The login of the administrator of a database in a container."""
CREATION_TIMEOUT_S = 300.0
"""How long a server program may take to create its data."""
_NEW = ".data-"
"""The prefix of a folder with data that is being created."""
COMPLETE = "complete"
"""The file beside the data that a container has created completely."""


@dataclass(frozen=True, slots=True)
class Server:
    """How a server is started, how its readiness is checked, and how it is stopped."""

    launch: Launch
    port: int
    probe: kinds.Probe
    password: str | None
    stop_signal: signal.Signals = signal.SIGTERM


def prepare_data(settings: Settings, owner: Owner, resource: Resource) -> None:
    """Create the data of a server program, with a password, if there is none.

    It may take seconds. Raises ResourceError, SecretError, OSError.
    """
    assert resource.program is not None
    folder = data_folder(settings, owner)
    if not (folder / "data").exists():
        required = kinds.of(resource.kind, resource.program).login is not None
        password = password_for(settings, owner, required=required)
        create_data(resource.kind, resource.program, folder, password, owner.stack)


def prepare_program(settings: Settings, owner: Owner, resource: Resource) -> Server:
    """Prepare the start of a server program whose data exists: its password and its port."""
    assert resource.program is not None
    folder = data_folder(settings, owner)
    password = password_for(settings, owner, required=False)
    program = kinds.of(resource.kind, resource.program)
    if password is None and program.creation(resource.program, owner.stack):
        raise ResourceError(
            f"{folder / LOGIN}, the version of the password of {owner.service}, is missing.",
            hint="Restore the file, or the newest backup of the database.",
        )
    port = _port(folder)
    launch, probe = launch_program(
        resource.kind,
        resource.program,
        folder,
        port=port,
        password=password,
        database=owner.stack,
        mark=f"{settings.home}|{owner}",
    )
    return Server(launch, port, probe, password, program.stop_signal)


def create_data(
    kind: ResourceKind, path: str, folder: Path, password: str | None, database: str
) -> None:
    """Create the new `data` in a folder: completely or not at all.

    A command that continues after its agent was killed has another folder. Raises ResourceError,
    KeyError if the program is not supported, OSError.
    """
    for left in folder.glob(f"{_NEW}*"):
        remove_tree(left)
    new, file = Path(tempfile.mkdtemp(prefix=_NEW, dir=folder)), folder / "new-password"
    facts = {"data": str(new), "database": database, "password_file": str(file)}
    commands = kinds.of(kind, path).creation(path, database)
    try:
        if commands:
            write_atomic(file, (password or "").encode())
        for creation in commands:
            done = subprocess.run(
                [word.format(**facts) for word in creation.arguments],
                input=creation.given.format(**facts).encode(),
                env=environ(folder), cwd=folder, timeout=CREATION_TIMEOUT_S,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
            if done.returncode:
                raise ResourceError(
                    f"{Path(creation.arguments[0]).name} cannot create the data of "
                    f"{folder.name} (exit status {done.returncode}).",
                    detail=done.stdout.decode(errors="replace").strip()[-2000:],
                    hint=f"Fix the cause, or set {variable(folder.name)} to the URL of a server.",
                )
        new.rename(folder / "data")
    except subprocess.TimeoutExpired as error:
        raise ResourceError(
            f"{Path(path).name} did not create the data of {folder.name} within "
            f"{CREATION_TIMEOUT_S:.0f} s.",
            hint="Run the command again when the machine is less busy.",
        ) from error
    finally:
        file.unlink(missing_ok=True)
        remove_tree(new)


def environ(folder: Path) -> dict[str, str]:
    """Return the variables of a server program or its tools, with a folder as home."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(folder),
    }


def launch_program(
    kind: ResourceKind,
    path: str,
    folder: Path,
    *,
    port: int,
    password: str | None,
    database: str,
    mark: str,
) -> tuple[Launch, kinds.Probe]:
    """Build the launch of a server program on the `data` in a folder, and its probe.

    A configuration file with the password is written to the folder. Raises KeyError if the program
    is not supported, OSError.
    """
    program, data = kinds.of(kind, path), folder / "data"
    variables = {**environ(folder), processes.MARK: mark}
    arguments = program.arguments(path, data, port)
    sent = b""
    if password is not None and program.login is not None:
        facts = {"password": password, "database": database}
        variables |= {k: v.format(**facts) for k, v in program.login.environ.items()}
        sent = program.login.greeting.encode()
        if program.login.configuration is not None:
            file, text = folder / CONFIGURATION, program.login.configuration.format(**facts)
            write_atomic(file, text.encode())
            first, *others = arguments
            option = program.login.option
            arguments = (*arguments, f"{option}{file}") if option else (first, str(file), *others)
    probe = kinds.Probe(sent + program.probe.sent, program.probe.expected)
    return Launch(arguments, variables, data), probe


def prepare_container(settings: Settings, owner: Owner, resource: Resource, fresh: bool) -> Server:
    """Prepare the container of a server.

    If it is started (`fresh`), data that an earlier container did not create completely is removed
    before: no entrypoint completes it, and no service has used it.
    """
    assert isinstance(resource.container, ResourceContainer)
    folder = data_folder(settings, owner)
    if images.recorded(folder) is None:
        images.record(folder, resource.container)
    elif fresh and not (folder / COMPLETE).exists():
        remove_tree(folder / "data")
    password = password_for(settings, owner, required=True)
    root_password = password_for(settings, owner, required=True, login=ROOT_LOGIN)
    assert password is not None
    assert root_password is not None
    port = _port(folder)
    facts = {"password": password, "root_password": root_password, "database": owner.stack}
    launch = images.prepare(settings, owner, resource, folder, facts, port=port)
    return Server(launch, port, images.SERVERS[resource.kind].probe, password)


def data_folder(settings: Settings, owner: Owner) -> Path:
    """Return the folder of a resource's data."""
    return settings.data / owner.stack / owner.environment / owner.service


def login_of(folder: Path, login: str = LOGIN) -> str | None:
    """Return the version of the password that a server requires; None if it has none."""
    file = folder / login
    return file.read_text() if file.exists() else None


def log_of(settings: Settings, owner: Owner) -> Path:
    """Return the log of a resource's server."""
    folder = logs.folder(settings.logs, owner.stack, owner.environment, owner.service)
    return folder / "server.log"


def url(
    owner: Owner,
    resource: Resource,
    record: ResourceProcess | None,
    settings: Settings,
    *,
    on_machine: bool,
) -> str:
    """Return the URL that a service gets for a resource. Reads and decrypts files.

    It is for processes in the network of the machine (`on_machine`), or for containers.

    Raises ResourceError if the server is not running, SecretError if a URL that was set by the user
    cannot be read.
    """
    if resource.provider == "url":
        if resource.secret is None:
            raise SecretError(f"The URL of {owner.service} is not stored.")
        store = SecretStore(settings.secrets)
        name = f"resource.{owner.service}"
        return store.get(owner.stack, owner.environment, name, resource.secret)
    folder = data_folder(settings, owner)
    if resource.provider == "embedded":
        return f"embedded://{folder}"
    if record is None or (resource.program is None and resource.provider == "binary"):
        raise ResourceError(
            f"The server of {owner.service} is not running.",
            hint=f"`lapwing logs {owner.service} -e {owner.environment}` shows its log.",
        )
    if resource.provider == "container":
        password = password_for(settings, owner, required=True)
        address = f"127.0.0.1:{record.port}" if on_machine else images.address(owner, resource)
        facts = {"user": kinds.USER, "password": password, "database": owner.stack}
        return images.SERVERS[resource.kind].url.format(address=address, **facts)
    assert resource.program is not None
    program = kinds.of(resource.kind, resource.program)
    database = f"/{owner.stack}" if resource.kind != "redis" else ""
    password = password_for(settings, owner, required=False)
    login = f"{program.login.user}:{password}@" if program.login and password else ""
    return f"{program.scheme}://{login}127.0.0.1:{record.port}{database}"


def password_for(
    settings: Settings, owner: Owner, *, required: bool, login: str = LOGIN
) -> str | None:
    """Return the password of a server; one that is `required` is generated once."""
    store = SecretStore(settings.secrets)
    secret = "password" if login == LOGIN else "root-password"
    where, name = (owner.stack, owner.environment), f"resource.{owner.service}.{secret}"
    file = data_folder(settings, owner) / login
    if not file.exists():
        if not required:
            return None
        write_atomic(file, store.generate(*where, name, 32).encode())
    return store.get(*where, name, file.read_text())


def _port(folder: Path) -> int:
    file = folder / "port"
    try:
        port = int(file.read_text())
    except (OSError, ValueError):
        port = ports.free_port(set())
        write_atomic(file, str(port).encode())
    return port
