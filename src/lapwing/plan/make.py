"""Build the document of an environment from a stack and its releases.

Every default of the stack file is filled in here; later stages do not read the stack file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from lapwing.errors import UsageError
from lapwing.plan import model, server_images
from lapwing.plan.model import Document
from lapwing.stack import branch_names, migrations
from lapwing.stack import model as written
from lapwing.stack.fields import Access, Headers
from lapwing.stack.load import LOCAL, LoadedStack
from lapwing.stack.resource_reference import variable_of


@dataclass(frozen=True, slots=True)
class Built:
    """The release of a service and the revision of the source that it was built from.

    A service that runs as a container on a machine has an `image` and a `container`; `folder` is
    the working directory in it, which relative paths of volumes are below. `artifact` is where a
    machine pulls the release.
    """

    release: str
    revision: str
    image: str | None = None
    container: model.Container | None = None
    folder: str = "/"
    artifact: str | UnsetType = UNSET


def make(
    loaded: LoadedStack,
    *,
    releases: Mapping[str, Built],
    resources: Mapping[str, model.Resource],
    secrets: Mapping[str, str],
    deployment: model.Deployment,
    current: Document | None,
) -> Document:
    """Build the document for a stack in an environment.

    A service without an entry in `releases` keeps its entry in `current`; one without either is
    left out: it has never been deployed and is not part of this deployment.
    """
    services = {}
    host, offline = domains(loaded)[0], migrations.offline(loaded.stack)
    for name, service in loaded.stack.services.items():
        if name in releases:
            built = _service(service, releases[name], resources, secrets, host)
            services[name] = replace(built, migrates=offline.get(name, UNSET))
        elif current is not None and name in current.services:
            services[name] = current.services[name]
    return Document(
        stack=loaded.stack.stack,
        environment=loaded.environment,
        domains=domains(loaded),
        acme=_acme(loaded),
        edge=_edge(loaded, secrets),
        backup=_backup(loaded),
        logs=_logs(loaded),
        maintenance=current.lasting_maintenance if current is not None else UNSET,
        deployment=deployment,
        services=services,
        resources=dict(resources),
    )


def domains(loaded: LoadedStack) -> tuple[str, ...]:
    """List the host names of an environment, the one to show first."""
    name = loaded.stack.stack
    own = f"{name}.localhost"
    if loaded.environment != LOCAL:
        template, branch = branch_names.split(loaded.environment)
        own = f"{branch}.{template}.{own}" if branch else f"{template}.{own}"
    return (*loaded.settings.host_names, own)


def _edge(loaded: LoadedStack, secrets: Mapping[str, str]) -> model.Edge | UnsetType:
    edge = model.Edge(
        redirects=dict(loaded.settings.redirects),
        certificate=_certificate(loaded, secrets),
        headers=headers(loaded.settings.headers),
        access=_access(loaded.settings.access, secrets),
    )
    return UNSET if edge == model.Edge() else edge


def headers(given: Headers) -> dict[str, model.HeaderValue]:
    """Return changes of response headers as the document has them."""
    return {
        name.lower(): tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
    }


def _certificate(loaded: LoadedStack, secrets: Mapping[str, str]) -> model.Certificate | None:
    tls = loaded.settings.tls
    if tls is None or tls.certificate is None or tls.key is None:
        return None
    key = model.SecretVersion(secret=tls.key, version=secrets[tls.key])
    return model.Certificate(chain=read_pem(loaded, tls.certificate, "certificate"), key=key)


def _backup(loaded: LoadedStack) -> model.Backup | UnsetType:
    wanted = loaded.settings.backup
    if wanted is None:
        return UNSET
    schedule = model.Schedule(cron=wanted.every, timezone=wanted.timezone, start_within=86400.0)
    return model.Backup(
        schedule=schedule,
        keep=wanted.keep,
        to=wanted.to,
        endpoint=wanted.endpoint,
        region=wanted.region,
        recipients=tuple(wanted.encrypt.recipients) if wanted.encrypt else (),
    )


def _logs(loaded: LoadedStack) -> model.LogShipping | UnsetType:
    wanted = loaded.settings.logs
    return UNSET if wanted is None else model.LogShipping(to=wanted.to, headers=wanted.headers)


def _acme(loaded: LoadedStack) -> model.Acme | UnsetType:
    """Return the public authority of an environment, if it has one."""
    tls = loaded.settings.tls
    if tls is None or tls.acme is None:
        return UNSET
    trusted = None if tls.acme.ca is None else read_pem(loaded, tls.acme.ca, "ca")
    return model.Acme(email=tls.acme.email, directory=tls.acme.directory, trusted=trusted)


def read_pem(loaded: LoadedStack, file: str, key: str) -> str:
    """Read the certificates of a file that a `key` of `tls` names. Raises UsageError.

    The text becomes a part of the document, and so of the desired state's history: a private key in
    the same file, as HAProxy reads it, is refused.
    """
    what = f"the `{key}` of `tls`"
    text = loaded.read(file, what)
    if "PRIVATE KEY-----" in text:
        raise UsageError(
            f"{loaded.folder / file}, {what}, contains a private key.",
            hint="Remove the key from this file, which is stored in git with the desired state. If "
            "the file was committed or deployed, replace the key and the certificate.",
        )
    return text


def resource(name: str, wanted: written.Resource) -> model.Resource:
    """Build a resource of the stack file that is not bound yet, with the container it may get."""
    return model.Resource(
        kind=wanted.kind,
        version=wanted.version,
        provider="embedded",
        variable=wanted.variable or variable_of(name),
        storage=wanted.storage,
        container=model.ResourceContainer(
            image=server_images.reference(wanted.kind, wanted.image, wanted.version),
            memory=wanted.resources.memory or server_images.IMAGES[wanted.kind].memory,
        ),
    )


def _service(
    service: written.Service,
    built: Built,
    resources: Mapping[str, model.Resource],
    secrets: Mapping[str, str],
    host: str,
) -> model.Service:
    return model.Service(
        kind=service.kind,
        release=built.release,
        revision=built.revision,
        image=built.image,
        container=built.container,
        artifact=built.artifact,
        command=service.command,
        route=service.route,
        health=model.Health(
            path=service.health.path,
            host=service.health.host or host,
            interval=service.health.interval,
            timeout=service.health.timeout,
            start_timeout=service.health.start_timeout,
            settle=service.health.settle,
        ),
        replicas=service.replicas.min,
        scale=_scale(service),
        cpu=service.resources.cpu,
        memory=service.resources.memory,
        env=dict(service.env),
        secrets={n: secrets[n] for n in service.secret_names},
        needs={n: resources[n].binding() for n in service.needs},
        volumes={
            name: path if built.container is None else str(PurePosixPath(built.folder, path))
            for name, path in service.volumes.items()
        },
        spa=service.spa,
        timeout=service.timeout,
        max_body=service.max_body,
        schedule=_schedule(service),
        after=tuple(service.after) or UNSET,
        rollout=_rollout(service),
        headers=headers(service.headers) or UNSET,
        access=_access(service.access, secrets) or UNSET,
    )


def _scale(service: written.Service) -> model.Scale | UnsetType:
    wanted = service.replicas
    if not wanted.is_scaled or wanted.max is None or service.kind == "job":
        return UNSET
    return model.Scale(
        max=wanted.max,
        cpu=(service.resources.cpu or 1.0) * (wanted.cpu or written.SCALE_UP_CPU),
        requests=wanted.requests,
        down_after=wanted.scale_down_after,
    )


def _access(access: Access | None, secrets: Mapping[str, str]) -> model.Access | None:
    if access is None:
        return None
    name = access.basic_auth
    users = name and model.SecretVersion(secret=name, version=secrets[name])
    return model.Access(allow=tuple(access.allow or ()), basic_auth=users or None)


def _schedule(service: written.Service) -> model.Schedule | UnsetType:
    wanted = service.schedule
    if wanted is None:
        return UNSET
    return model.Schedule(
        cron=wanted.cron, timezone=wanted.timezone, start_within=wanted.start_within
    )


def _rollout(service: written.Service) -> model.Rollout:
    rollout = service.rollout
    analysis = rollout.analysis if service.kind in ("web", "static") else None
    return model.Rollout(
        smoke=tuple(
            model.Smoke(
                get=t.get, expect=t.expect, contains=t.contains, run=t.run, timeout=t.timeout
            )
            for t in rollout.smoke
        ),
        analysis=model.Analysis(
            window=analysis.window,
            max_error_rate=analysis.max_error_rate,
            max_p95=analysis.max_p95,
            min_requests=analysis.min_requests,
        )
        if analysis is not None
        else None,
        hold=rollout.hold,
        keep_old=rollout.keep_old,
        drain=rollout.drain,
        stop_grace=rollout.stop_grace,
    )
