"""Settings: the only reader of the process's environment.

Everything else gets a `Settings` handed in, so a test can make one for a temporary home and no
module can depend on a variable that is written down nowhere. `Settings` also names every path
under LAPWING_HOME, so the state folder has one table of contents:

    desired.git/            the desired state: git, the only database
    releases/               immutable bundles, one folder per release
    layers/                 dependencies shared between releases, by lock file
    images/                 layers of images, made here or downloaded
    toolchains/             Node and its package managers
    logs/                   build logs and what replicas print
    environments/           what the agent knows of each environment: state, status, events
    data/                   data of resources; survives `down`
    secrets/                encrypted values and their key, 0600
    certificates/           the local certificate authority
    envoy/                  Envoy's files
    sources/                the source of stacks that were sent to this server
    pull/                   the desired-state repositories that the agent pulls
    reserve/                files that are removed when the disk is full, so that state can be saved
    agent/                  the agent's lock, log and process id
    .lapwing-home           an empty file: this folder is a LAPWING_HOME
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lapwing.errors import UsageError
from lapwing.system import home as state_folder
from lapwing.system.registry_variable import registry_variable, user_of

DEFAULT_PORT = 8585
UNDERSCORE_ACTIONS = ("reject", "drop", "allow")
SQLITE = (".db", ".sqlite", ".sqlite3")
"""The ends of paths of volumes that are a single file."""
COMPLETION = "_LAPWING_COMPLETE"
"""The variable in which a shell's completion script asks what could come next."""


class LoginFile(NamedTuple):
    """A file of logins for registries, in the form of Docker's config.json or of Podman's."""

    path: Path
    podman: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment of the process says. `bind` is the address Envoy listens on."""

    home: Path
    port: int = DEFAULT_PORT
    bind: str = "localhost"
    http_port: int | None = None
    """A port on which Envoy redirects plain HTTP to https; none by default."""
    metrics_port: int | None = None
    """The first of the ports on which Envoy's processes serve metrics; none by default."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks of proxies in front of Envoy, whose X-Forwarded headers are kept."""
    proxy_protocol: bool = False
    """Whether these proxies state the client's address by the PROXY protocol."""
    underscore_headers: str = "reject"
    """What happens to request headers with an underscore in their name."""
    body_timeout: int = 600
    """The seconds within which a request has to arrive; 0 for no limit."""
    server: bool = False
    """Whether `lapwing server setup` set up this machine: a systemd unit runs the agent."""
    actor: str | None = None
    color: bool = True
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def own_address(self) -> str:
        """Return the address at which this machine reaches Envoy, whatever it listens on."""
        return {"localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(  # noqa: S104
            self.bind, self.bind
        )

    def metrics_ports(self) -> tuple[int, ...]:
        """Return the ports for metrics on 127.0.0.1, one for each process of Envoy."""
        return () if self.metrics_port is None else (self.metrics_port, self.metrics_port + 1)

    def listener_environ(self) -> dict[str, str]:
        """Return the variables from which an agent reads its home and how Envoy listens."""
        return {
            "LAPWING_HOME": str(self.home),
            "LAPWING_PORT": str(self.port),
            "LAPWING_BIND": self.bind,
            "LAPWING_HTTP_PORT": str(self.http_port or ""),
            "LAPWING_METRICS_PORT": str(self.metrics_port or ""),
            "LAPWING_TRUSTED_PROXIES": ",".join(self.trusted_proxies),
            "LAPWING_PROXY_PROTOCOL": "on" if self.proxy_protocol else "off",
            "LAPWING_UNDERSCORE_HEADERS": self.underscore_headers,
            "LAPWING_BODY_TIMEOUT": str(self.body_timeout),
        }

    @property
    def desired(self) -> Path:
        """The bare desired-state repository."""
        return self.home / "desired.git"

    @property
    def remotes(self) -> Path:
        """Local copies of remote desired-state repositories."""
        return self.home / "remotes"

    @property
    def releases(self) -> Path:
        """The immutable releases of services."""
        return self.home / "releases"

    @property
    def layers(self) -> Path:
        """Installed dependencies, shared by releases with the same lock file."""
        return self.home / "layers"

    @property
    def images(self) -> Path:
        """Layers of images: those that were made here, and those of base images."""
        return self.home / "images"

    @property
    def toolchains(self) -> Path:
        """Node.js and package managers that Lapwing installed."""
        return self.home / "toolchains"

    @property
    def logs(self) -> Path:
        """Logs of replicas, builds and the agent."""
        return self.home / "logs"

    @property
    def data(self) -> Path:
        """Volumes, and the data of databases that Lapwing runs."""
        return self.home / "data"

    @property
    def secrets(self) -> Path:
        """Encrypted secrets and their key."""
        return self.home / "secrets"

    @property
    def certificates(self) -> Path:
        """The local certificate authority and what it issued."""
        return self.home / "certificates"

    @property
    def envoy(self) -> Path:
        """Envoy's configuration and log."""
        return self.home / "envoy"

    @property
    def sources(self) -> Path:
        """The source of stacks, as clients sent it to this server."""
        return self.home / "sources"

    @property
    def pull(self) -> Path:
        """The desired-state repositories that the agent pulls, and the state of each."""
        return self.home / "pull"

    @property
    def agent(self) -> Path:
        """The agent's process id, lock and log."""
        return self.home / "agent"

    def volume(self, stack: str, environment: str, name: str, path: str) -> Path:
        """Return the place of a volume: a folder, or a file in it if `path` is one of SQLite."""
        folder = self.data / stack / environment / f"volume.{name}"
        file = PurePosixPath(path)
        return folder / file.name if file.suffix in SQLITE else folder

    def environment(self, stack: str, environment: str) -> Path:
        """Return the agent's folder of one environment of one stack."""
        return self.home / "environments" / stack / environment

    def resource_url(self, resource: str) -> str | None:
        """The URL that the user gives for a resource: LAPWING_RESOURCE_<NAME>_URL."""
        name = resource.upper().replace("-", "_")
        return self.environ.get(f"LAPWING_RESOURCE_{name}_URL") or None

    def docker_config(self) -> Path:
        """The file in which `docker login` keeps logins: DOCKER_CONFIG names its folder."""
        folder = self.environ.get("DOCKER_CONFIG")
        home = self.environ.get("HOME", "~")
        return (Path(folder) if folder else Path(home).expanduser() / ".docker") / "config.json"

    def login_files(self) -> list[LoginFile]:
        """Return the files in which docker and podman keep logins, in the order of search."""
        environ, home = self.environ, Path(self.environ.get("HOME", "~")).expanduser()
        podman = [
            Path(folder) / "containers" / "auth.json"
            for folder in (
                environ.get("XDG_RUNTIME_DIR"),
                environ.get("XDG_CONFIG_HOME") or home / ".config",
            )
            if folder
        ]
        named = environ.get("REGISTRY_AUTH_FILE")
        first = [LoginFile(Path(named), podman=True)] if named else []
        docker = LoginFile(self.docker_config(), podman=False)
        return [*first, docker, *(LoginFile(path, podman=True) for path in podman)]

    def kubeconfigs(self) -> list[Path]:
        """Return the kubeconfig files: those of KUBECONFIG, else `~/.kube/config`.

        The first file that defines a name wins.
        """
        named = [Path(p) for p in self.environ.get("KUBECONFIG", "").split(os.pathsep) if p]
        home = self.environ.get("HOME", "~")
        return named or [Path(home).expanduser() / ".kube" / "config"]

    def registry_login(self, host: str) -> tuple[str, str] | None:
        """Return user and token for a registry from the environment, as CI sets them."""
        variable = registry_variable(host)
        token = self.environ.get(f"{variable}_TOKEN")
        if not token:
            return None
        return self.environ.get(f"{variable}_USER") or user_of(host, token), token

    def with_registry_token(self, host: str, token: str) -> Settings:
        """These settings with a token for a registry that has none yet."""
        if self.registry_login(host):
            return self
        return replace(self, environ={**self.environ, f"{registry_variable(host)}_TOKEN": token})

    def signing_key(self) -> str | None:
        """Return the private key that signs images, in PEM format, as CI sets it."""
        return self.environ.get("LAPWING_SIGNING_KEY") or None

    def forge_token(self, kind: str) -> str | None:
        """Return the token for a forge (`gitea` or `github`).

        LAPWING_FORGE_TOKEN, else the variable that the forge's runners set, GITEA_TOKEN or
        GITHUB_TOKEN. The token of one forge is never sent to the other.
        """
        own = {"gitea": "GITEA_TOKEN", "github": "GITHUB_TOKEN"}[kind]
        return self.environ.get("LAPWING_FORGE_TOKEN") or self.environ.get(own) or None


def read(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment.

    Raises UsageError if a variable has an invalid value.
    """
    env = os.environ if environ is None else environ
    home = env.get("LAPWING_HOME")
    port = _port(env, "LAPWING_PORT", DEFAULT_PORT)
    folder = _absolute(home) if home else _default_home(env)
    state_folder.check_access(folder)
    found = Settings(
        home=folder,
        port=port or DEFAULT_PORT,
        http_port=_port(env, "LAPWING_HTTP_PORT", None),
        metrics_port=_port(env, "LAPWING_METRICS_PORT", None, last=65534),
        bind=env.get("LAPWING_BIND") or "localhost",
        trusted_proxies=_networks(env.get("LAPWING_TRUSTED_PROXIES", "")),
        proxy_protocol=_proxy_protocol(env),
        underscore_headers=_underscore_headers(env.get("LAPWING_UNDERSCORE_HEADERS") or "reject"),
        body_timeout=_seconds(env.get("LAPWING_BODY_TIMEOUT") or "600"),
        server=bool(env.get("LAPWING_SERVER")),
        actor=env.get("LAPWING_ACTOR") or None,
        color=not env.get("NO_COLOR") and env.get("TERM") != "dumb",
        environ=dict(env),
    )
    _check_distinct(found)
    return found


def _check_distinct(settings: Settings) -> None:
    """Raise UsageError if two variables name one port."""
    metrics = settings.metrics_ports()
    ports = [("LAPWING_PORT", settings.port), *(("LAPWING_METRICS_PORT", port) for port in metrics)]
    if settings.http_port is not None:
        ports.insert(1, ("LAPWING_HTTP_PORT", settings.http_port))
    used: dict[int, str] = {}
    for variable, port in ports:
        if port in used:
            raise UsageError(
                f"Port {port} is used by both {used[port]} and {variable}.",
                hint=f"Set {variable} to another one; LAPWING_METRICS_PORT takes two.",
            )
        used[port] = variable


def _port(
    env: Mapping[str, str], variable: str, default: int | None, last: int = 65535
) -> int | None:
    text = env.get(variable)
    if text is None or (not text and default is None):
        return default
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= last:
        raise UsageError(
            f"{variable} is {text!r}, which is not a port number that can be used.",
            hint=f"Set it to a number from 1 to {last}, "
            f"or unset it{f' for {default}' if default else ''}.",
        )
    return int(text)


def _networks(text: str) -> tuple[str, ...]:
    import ipaddress

    try:
        return tuple(str(ipaddress.ip_network(n)) for n in re.split(r"[\s,]+", text) if n)
    except ValueError as error:
        raise UsageError(
            f"LAPWING_TRUSTED_PROXIES is {text!r}: {error}.",
            hint="List addresses or networks, such as `10.0.0.0/8,192.0.2.7`.",
        ) from error


def _proxy_protocol(env: Mapping[str, str]) -> bool:
    action = env.get("LAPWING_PROXY_PROTOCOL") or "off"
    if action not in ("on", "off"):
        raise UsageError(f"LAPWING_PROXY_PROTOCOL is {action!r}.", hint="Set it to on or off.")
    if action == "on" and not env.get("LAPWING_TRUSTED_PROXIES"):
        raise UsageError(
            "LAPWING_PROXY_PROTOCOL is on, but LAPWING_TRUSTED_PROXIES is not set.",
            hint="Set LAPWING_TRUSTED_PROXIES to the addresses of the load balancer: any other "
            "peer could state a false address.",
        )
    return action == "on"


def _underscore_headers(action: str) -> str:
    if action not in UNDERSCORE_ACTIONS:
        raise UsageError(
            f"LAPWING_UNDERSCORE_HEADERS is {action!r}.",
            hint=f"Set it to one of {', '.join(UNDERSCORE_ACTIONS)}.",
        )
    return action


def _seconds(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text):
        raise UsageError(
            f"LAPWING_BODY_TIMEOUT is {text!r}, which is not a number of seconds.",
            hint="Set it to a number such as 600, or to 0 for no limit.",
        )
    return int(text)


def completion(environ: Mapping[str, str] | None = None) -> str | None:
    """What a shell's completion script asks for (such as `bash_complete`), if it asks."""
    return (os.environ if environ is None else environ).get(COMPLETION) or None


def _absolute(home: str) -> Path:
    try:
        folder = Path(home).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"LAPWING_HOME is {home!r}: the user does not exist.", hint="Set it to a full path."
        ) from error
    if not folder.is_absolute():  # It would be another folder after `cd`.
        raise UsageError(
            f"LAPWING_HOME is {home!r}, which is not an absolute path.",
            hint=f"Set it to an absolute path, such as {folder.absolute()}.",
        )
    return folder


def _default_home(env: Mapping[str, str]) -> Path:
    if sys.platform == "linux":  # What platformdirs returns, without its imports (5 ms).
        data = env.get("XDG_DATA_HOME", "")
        return _absolute(f"{data if data.startswith('/') else '~/.local/share'}/lapwing")
    import platformdirs

    return Path(platformdirs.user_data_dir("lapwing", appauthor=False))
