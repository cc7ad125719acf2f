"""What a deployment to a machine needs before it builds: resources, secrets, buildable sources.

All that is missing is reported at once, and no secret is generated then.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from lapwing.agent import basic_auth, engine
from lapwing.agent.resources.bind import Host, bind, variable
from lapwing.build.builder import check
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import (
    BackupError,
    LapwingError,
    RequirementsError,
    ResourceError,
    SecretError,
    UsageError,
)
from lapwing.plan import host_names, maintenance, make
from lapwing.plan.model import (
    Document,
    Resource,
    ResourceContainer,
    SecretVersion,
    preview_of,
    public_hosts,
)
from lapwing.settings import Settings
from lapwing.stack.load import LOCAL, LoadedStack
from lapwing.system import age, x509
from lapwing.system.files import real_path
from lapwing.targets.sources import (
    Progress,
    check_committed,
    check_env_files,
    container_services,
    request_of,
)


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a deployment needs in addition to releases: bound resources, versions of secrets."""

    resources: Mapping[str, Resource]
    secrets: Mapping[str, str]


def find_requirements(
    loaded: LoadedStack,
    settings: Settings,
    current: Document | None,
    wanted: list[str],
    progress: Progress = lambda _: None,
    *,
    sources: Collection[str] = (),
    containers: bool = False,
) -> Requirements:
    """Bind resources and find secrets; generate values only where the stack file asks for it.

    `sources` are services that will be built: their sources are checked, too. With
    `containers`, a new resource may run in a container.
    Raises ResourceError, SecretError, SourceError, BuildError or UsageError, or RequirementsError
    if several are not met. Then no value was generated.
    """
    store = SecretStore(settings.secrets)
    where = (loaded.stack.stack, loaded.environment)
    problems: list[LapwingError] = []
    keep = partial(store.set, *where)
    bound = _bind(loaded, settings, current, problems, keep, containers=containers)
    versions = store.current(*where)
    unset = _find_unset(loaded, wanted, versions, problems)
    _check_settings(loaded, settings, store, versions, problems)
    _check_sources(loaded, settings, sources, problems)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise RequirementsError(problems)
    for name, (length, _) in unset.items():
        versions[name] = store.generate(*where, name, length)
        progress(f"generated the secret {name}")
    for name, resource in bound.items():
        if current is None or name not in current.resources:
            progress(f"{name}: {_provider(resource)}")
    return Requirements(bound, versions)


def missing_requirements(loaded: LoadedStack, settings: Settings) -> list[LapwingError]:
    """Return what the next deployment of every service would lack. Changes nothing."""
    problems: list[LapwingError] = []
    repository = DesiredRepository(settings.desired)
    where = (loaded.stack.stack, loaded.environment)
    current = repository.latest_valid(*where) if settings.desired.is_dir() else None
    _bind(loaded, settings, current, problems, lambda _name, _url: "", containers=True)
    store = SecretStore(settings.secrets)
    versions = store.current(*where)
    _find_unset(loaded, list(loaded.stack.services), versions, problems)
    _check_settings(loaded, settings, store, versions, problems)
    _check_sources(loaded, settings, loaded.stack.services, problems)
    return problems


def _check_settings(
    loaded: LoadedStack,
    settings: Settings,
    store: SecretStore,
    versions: Mapping[str, str],
    problems: list[LapwingError],
) -> None:
    """Check the settings of the environment that name secrets and files."""
    _check_certificate(loaded, store, versions, problems)
    _check_users(loaded, store, versions, problems)
    _check_logs(loaded, store, problems)
    _check_maintenance_page(loaded, problems)
    _check_backup(loaded, settings, problems)
    _check_host_names(loaded, settings, problems)


def _check_sources(
    loaded: LoadedStack, settings: Settings, names: Iterable[str], problems: list[LapwingError]
) -> None:
    """Check what can be known of sources of processes before they are built."""
    try:
        check_env_files(loaded, settings)
    except LapwingError as error:
        problems.append(error)
    contained = container_services(loaded, names)
    for name in [n for n in names if n not in contained]:
        try:
            source = check(request_of(loaded, name, settings), settings)
            check_committed(loaded, {name: source.revision})
        except LapwingError as error:
            if str(error) not in map(str, problems):  # Such as: git is not installed.
                problems.append(error)


def _check_host_names(
    loaded: LoadedStack, settings: Settings, problems: list[LapwingError]
) -> None:
    """Check that no other environment of this machine is deployed with one of the host names."""
    if loaded.settings.target != "machine" or not settings.desired.is_dir():
        return
    repository, own = DesiredRepository(settings.desired), (loaded.stack.stack, loaded.environment)
    served = []
    for key in repository.environments():
        document = repository.latest_valid(*key) if key != own else None
        is_served = document and (document.services or document.maintenance)
        if document and is_served and document.target == "machine":
            served.append(("/".join(key), document))
    domains = make.domains(loaded)
    names = {*domains, *loaded.settings.redirects, *map(preview_of, domains)}
    if (conflict := host_names.find_conflict(names, served)) is not None:
        problems.append(host_names.conflict_error(*conflict))


def _check_backup(loaded: LoadedStack, settings: Settings, problems: list[LapwingError]) -> None:
    """Check the recipients, the packages and the folder of backups.

    A folder in LAPWING_HOME is refused, because Lapwing removes and replaces files there.
    """
    wanted = loaded.settings.backup
    if wanted is None or loaded.settings.target != "machine":
        return
    if wanted.encrypt is not None:
        try:
            age.read_recipients(wanted.encrypt.recipients)
        except BackupError as error:
            problems.append(error)
    to, home, default = wanted.to, settings.home, settings.home / "backups"
    if to is None:
        return
    if to.startswith("s3://"):
        if find_spec("boto3") is None:
            from lapwing.agent.backup_bucket import boto3_missing

            problems.append(boto3_missing())
        return
    folder = real_path(Path(to))
    if folder.is_relative_to(real_path(home)) and not folder.is_relative_to(real_path(default)):
        message = f"`to` of `backup` is {to}, which is in LAPWING_HOME ({home})."
        hint = f"Lapwing removes files there. Set another folder, or remove `to` to use {default}."
        problems.append(UsageError(message, hint=hint))


def _check_maintenance_page(loaded: LoadedStack, problems: list[LapwingError]) -> None:
    """Check that the maintenance page can be read, before maintenance needs it."""
    try:
        maintenance.read_page(loaded)
    except UsageError as error:
        problems.append(error)


def _check_users(
    loaded: LoadedStack,
    store: SecretStore,
    versions: Mapping[str, str],
    problems: list[LapwingError],
) -> None:
    """Check that Envoy will accept the users of `access: {basic_auth: NAME}`."""
    for name in loaded.basic_auth:
        if name not in versions:
            hint = f"Set it with `{_setting(loaded, name)}`: one `name:password` per line."
            problems.append(SecretError(f"Secret {name} of `access` is not set.", hint=hint))
            continue
        given = SecretVersion(secret=name, version=versions[name])
        try:
            basic_auth.check_users(loaded.stack.stack, loaded.environment, given, store)
        except LapwingError as error:
            problems.append(error)


def _check_logs(loaded: LoadedStack, store: SecretStore, problems: list[LapwingError]) -> None:
    """Check that the headers of `logs` have values."""
    logs = loaded.settings.logs
    if logs is not None and loaded.settings.target == "machine":
        from lapwing.agent.log_destinations import header_values

        try:
            header_values(store, (loaded.stack.stack, loaded.environment), logs.headers)
        except SecretError as error:
            problems.append(error)


def _check_certificate(
    loaded: LoadedStack,
    store: SecretStore,
    versions: Mapping[str, str],
    problems: list[LapwingError],
) -> None:
    """Check that clients will accept the certificate of `tls: {certificate: FILE, key: NAME}`."""
    tls = loaded.settings.tls
    if tls is None or tls.certificate is None or tls.key is None:
        return
    setting = f"{_setting(loaded, tls.key)} < FILE"
    if tls.key not in versions:
        hint = f"Set it with `{setting}`: the private key in PEM format."
        problems.append(SecretError(f"Secret {tls.key} of `tls` is not set.", hint=hint))
        return
    try:
        chain = make.read_pem(loaded, tls.certificate, "certificate")
        key = store.get(loaded.stack.stack, loaded.environment, tls.key, versions[tls.key])
    except LapwingError as error:
        problems.append(error)
        return
    hosts = public_hosts([*loaded.settings.host_names, *loaded.settings.redirects])
    if fault := x509.find_fault(chain, key, hosts):
        hint = f"Replace the file, and set its key with `{setting}`. Nothing was changed."
        message = f"The certificate {tls.certificate} cannot be used: {fault}."
        problems.append(UsageError(message, hint=hint))


def _find_unset(
    loaded: LoadedStack,
    wanted: list[str],
    versions: Mapping[str, str],
    problems: list[LapwingError],
) -> dict[str, tuple[int | None, str]]:
    """Return the secrets without a value: the length to generate, and a service that has it."""
    unset = {
        secret.name: (secret.generate, service)
        for service in wanted
        for secret in loaded.stack.services[service].secrets
        if secret.name not in versions
    }
    for name, (length, service) in unset.items():
        if length is None:
            hint = (
                f"Set it with `{_setting(loaded, name)}`, or write `{{name: {name}, "
                "generate: 32}` in the stack file for a generated value."
            )
            problems.append(SecretError(f"Secret {name} of {service} is not set.", hint=hint))
    return unset


def _setting(loaded: LoadedStack, secret: str) -> str:
    option = "" if loaded.environment == LOCAL else f" -e {loaded.environment}"
    return f"lapwing secret set {secret}{option}"


def _bind(
    loaded: LoadedStack,
    settings: Settings,
    current: Document | None,
    problems: list[LapwingError],
    keep: Callable[[str, str], str],
    *,
    containers: bool,
) -> dict[str, Resource]:
    """Bind the resources; `keep` stores a URL under a name."""
    bound = {}
    folder = settings.data / loaded.stack.stack / loaded.environment
    is_branch = loaded.settings.branches is not None  # It never uses the data of another one.

    @functools.cache
    def has_engine() -> bool:
        return containers and engine.is_running(settings.environ)

    for name, wanted in loaded.stack.resources.items():
        try:
            bound[name] = bind(
                name,
                make.resource(name, wanted),
                embedded=wanted.embedded,
                url=None if is_branch else settings.resource_url(name),
                current=current.resources.get(name) if current else None,
                keep_url=partial(keep, f"resource.{name}"),
                host=Host(folder / name, has_engine),
            )
        except ResourceError as error:
            problems.append(error)
    return bound


def check_reachable(
    loaded: LoadedStack, contained: Iterable[str], resources: Mapping[str, Resource]
) -> None:
    """Check that containers reach what they need. Raises ResourceError.

    A server process listens on the loopback address, which in a container is the container's own.
    """
    for name in contained:
        for need in loaded.stack.services[name].needs:
            if resources[need].provider in ("binary", "embedded"):
                raise ResourceError(
                    f"{name} runs as a container and cannot reach {need}, which is "
                    f"{_provider(resources[need])}.",
                    hint=f"Set {variable(need)} to a URL that containers reach, or use `runtime: "
                    f"process` for {name}.",
                )


def _provider(resource: Resource) -> str:
    if resource.provider == "url":
        return f"{resource.kind} at the given URL"
    if resource.provider == "binary":
        return f"{resource.kind} by {resource.program}"
    if isinstance(resource.container, ResourceContainer):
        return f"{resource.kind} in a container of {resource.container.image}"
    return f"no {resource.kind} server found; the application stores its data in a folder"
