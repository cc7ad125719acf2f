"""Rules about services: what they need, their routes, kinds, sources, tests and limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import quote

from lapwing.errors import did_you_mean
from lapwing.settings import SQLITE
from lapwing.stack.environment import Environment
from lapwing.stack.migrations import job_of
from lapwing.stack.model import Service, Stack
from lapwing.stack.resource_reference import variable_of
from lapwing.stack.source import KeyPath, Violation

_CONTAINER_KEYS = ("port", "user", "scratch")


def check_needs(stack: Stack, _: Environment) -> Iterator[Violation]:
    """Every entry of `needs` is a resource of the stack."""
    for name, service in stack.services.items():
        for index, need in enumerate(service.needs):
            path = ("services", name, "needs", index)
            if need in stack.resources:
                continue
            if need in stack.services:
                hint = "Services reach each other by their routes."
                yield Violation(f"`{need}` is a service; `needs` lists resources.", path, hint)
            else:
                known = f"Resources of this stack: {', '.join(stack.resources) or 'none'}."
                hint = did_you_mean(need, stack.resources) or known
                yield Violation(f"There is no resource `{need}`.", path, hint)


def check_job_order(stack: Stack, _: Environment) -> Iterator[Violation]:
    """`after` of a job lists services, not jobs; no other variable of it is `<SERVICE>_URL`."""
    others = [n for n, s in stack.services.items() if s.kind != "job"]
    known = f"Services of this stack: {', '.join(others) or 'none'}."
    for name, service in stack.services.items():
        if service.after and service.kind != "job":
            hint = "Set `kind: job`, or remove `after`."
            message = f"`after` is only for jobs; `{name}` is a {service.kind} service."
            yield Violation(message, ("services", name, "after"), hint, key=True)
            continue
        taken = {*service.env, *service.secret_names}
        taken |= {stack.resources[n].variable or "" for n in service.needs if n in stack.resources}
        taken |= {variable_of(n) for n in service.needs}
        for index, before in enumerate(service.after):
            path: KeyPath = ("services", name, "after", index)
            if before not in stack.services:
                hint = did_you_mean(before, others) or known
                yield Violation(f"There is no service `{before}`.", path, hint)
            elif stack.services[before].kind == "job":
                message = f"`{before}` is a job; `after` lists services that keep running."
                yield Violation(message, path, known)
            elif variable_of(before) in taken and stack.services[before].kind != "worker":
                message = f"`{variable_of(before)}` is already set, but `after` sets it, too."
                yield Violation(message, path, "Rename the other variable.")


def check_routes(stack: Stack, _: Environment) -> Iterator[Violation]:
    """Each route belongs to one service and can be the path of a request."""
    taken: dict[str, str] = {}
    for name, service in stack.services.items():
        if service.route is None:
            continue
        path = ("services", name, "route")
        route = service.route.rstrip("/") or "/"
        if route in taken:
            message = f"`{taken[route]}` and `{name}` have the same route, `{route}`."
            yield Violation(message, path, "Give each service its own route.")
        taken.setdefault(route, name)
        if "//" in service.route or re.search(r"(^|/)\.\.?(/|$)", service.route):
            hint = "Proxies rewrite such paths; write the path that clients request."
            message = f"The route `{service.route}` contains `//`, `.` or `..`."
            yield Violation(message, path, hint)
        encoded = quote(service.route, safe="/%:@!$&'()*+,;=")  # See RFC 3986, section 3.3.
        if encoded != service.route:
            message = f"The route `{service.route}` matches no request: clients encode its path."
            yield Violation(message, path, f"Write `route: {encoded}`.")


def check_kinds(stack: Stack, _: Environment) -> Iterator[Violation]:
    """The settings of a service fit its kind."""
    for name, service in stack.services.items():
        at: KeyPath = ("services", name)
        kind = service.kind
        portless = kind in ("worker", "job")
        if kind == "static":
            yield from _check_static(service, at)
        elif service.static is not None:
            message = f"`static` is only for static services; `{name}` is a {kind} service."
            yield Violation(message, (*at, "static"))
        if portless and service.route is not None:
            hint = "Set `kind: web`, or remove the route."
            message = f"A {kind} cannot have a route: it listens on no port."
            yield Violation(message, (*at, "route"), hint)
        if not portless and service.route is None:
            yield Violation(f"`{name}` has no route.", at, "Add `route: /`.", key=True)
        if kind == "worker" and service.health.path is not None:
            message = "A worker cannot have a health path: it listens on no port."
            yield Violation(message, (*at, "health"))
        if portless and service.health.live is not None:
            message = f"A {kind} cannot have a liveness path: it listens on no port."
            yield Violation(message, (*at, "health", "live"), key=True)
        if portless and service.port is not None:
            yield Violation(f"A {kind} listens on no port.", (*at, "port"), key=True)
        if service.build is not None and kind != "static" and service.command is None:
            hint = "Add `command:` with the start command."
            yield Violation(f"`{name}` has no command.", at, hint, key=True)
        if kind != "job" and service.schedule is not None:
            message = f"`schedule` is only for jobs; `{name}` is a {kind} service."
            hint = "Set `kind: job`, or remove `schedule`."
            yield Violation(message, (*at, "schedule"), hint, key=True)
        if kind == "job" and service.replicas.min > 1:
            message = "A job runs once; it cannot have replicas."
            yield Violation(message, (*at, "replicas"))


def check_buffering(stack: Stack, _: Environment) -> Iterator[Violation]:
    """Only requests that are buffered have a size limit, and only routed services have requests."""
    for name, service in stack.services.items():
        at: KeyPath = ("services", name, "buffering")
        buffering = service.buffering
        if service.route is None and "buffering" in service.model_fields_set:
            message = f"`{name}` has no route, so it gets no requests to buffer."
            yield Violation(message, at, "Remove `buffering`.", key=True)
        elif not buffering.requests and "max_request_body" in buffering.model_fields_set:
            message = "`max_request_body` limits buffered requests, but `requests` is `false`."
            hint = "Limit streamed requests in the application, or remove `requests: false`."
            yield Violation(message, (*at, "max_request_body"), hint, key=True)


def _check_static(service: Service, at: KeyPath) -> Iterator[Violation]:
    if service.static is None:
        hint = "Add `static:` with the folder of built files, such as `dist`."
        yield Violation("A static service needs `static`.", at, hint, key=True)
    elif _is_outside(service.static):
        hint = "Write it relative to the folder of `build`, such as `dist`."
        message = f"The static folder {service.static!r} is outside of the source folder."
        yield Violation(message, (*at, "static"), hint)
    if service.command is not None:
        hint = "Remove `command`, or remove `static` if it is a program."
        message = "A static service serves files; it cannot have a command."
        yield Violation(message, (*at, "command"), hint)
    for variable in ("PORT", "port"):
        if variable in service.env:
            yield Violation("A static service has no port.", (*at, "env", variable), key=True)
    for key in ("secrets", "needs", "env_file"):
        if getattr(service, key):
            message = f"A static service has no process, so it cannot have `{key}`."
            yield Violation(message, (*at, key))


def _is_outside(path: str) -> bool:
    return PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts


def check_sources(stack: Stack, _: Environment) -> Iterator[Violation]:
    """Each service has one source: `build` (with or without `dockerfile`), or `image`."""
    for name, service in stack.services.items():
        given = [k for k in ("build", "dockerfile", "image") if getattr(service, k) is not None]
        at: KeyPath = ("services", name)
        if "image" in given and len(given) > 1:
            message = f"`{name}` has both `{given[0]}` and `image`."
            yield Violation(message, (*at, "image"), "Keep one of them.")
        elif not given:
            hint = "Add `build:` with the source folder, or `image:`."
            yield Violation(f"`{name}` has no source.", at, hint, key=True)
        elif service.build is not None and service.dockerfile is None:
            for key in ("target", "secrets"):
                if getattr(service.build, key):
                    message = f"`{key}` is for a Dockerfile, and `{name}` has none."
                    hint = f"Add `dockerfile:`, or remove `{key}`."
                    yield Violation(message, (*at, "build", key), hint, key=True)


def check_machine_sources(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """On a machine, what has no source folder runs as a container, and static services do not."""
    if environment.target != "machine":
        return
    for name, service in stack.services.items():
        at: KeyPath = ("services", name)
        source = "dockerfile" if service.dockerfile is not None else "image"
        if service.kind == "static" and service.build is None and getattr(service, source):
            hint = "Add `build:` with the source folder, or use `kind: web` for a server."
            message = f"`{name}` is static, and a machine serves files of a source folder only."
            yield Violation(message, (*at, source), hint)
        elif service.kind == "static" and service.runtime == "container":
            message = f"`{name}` is static; on a machine Caddy serves it."
            yield Violation(message, (*at, "runtime"), "Remove `runtime`.")
        elif service.build is None and service.runtime == "process":
            hint = "Remove `runtime`, or add `build:` with the source folder."
            message = f"`{name}` has an image and no source folder, so it cannot run as a process."
            yield Violation(message, (*at, "runtime"), hint)
        if service.runtime_in(environment) == "container":
            yield from _check_container_volumes(service, at)


def _check_container_volumes(service: Service, at: KeyPath) -> Iterator[Violation]:
    for volume, path in service.volumes.items():
        if PurePosixPath(path).suffix in SQLITE:
            hint = "Use a folder, such as `./data`, and keep the file in it."
            message = f"Volume `{volume}`: a container cannot have the single file {path!r}."
            yield Violation(message, (*at, "volumes", volume), hint)


def check_cluster_only_keys(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """On a machine, no setting is used that only Kubernetes supports."""
    if environment.target != "machine":
        return
    for key in ("delivery", "rollouts", "repository", "gateway"):
        if getattr(environment, key) is not None:
            message = f"`{key}` is only for `target: kubernetes`."
            hint = f"Set `target: kubernetes`, or remove `{key}`."
            yield Violation(message, (key,), hint, key=True)
    hint = "Move it to the environment of the cluster: `environments: NAME: services: ...`."
    for name, service in stack.services.items():
        if service.schedule is not None and service.schedule.suspend:
            message = "`schedule.suspend` of a service is only for Kubernetes."
            yield Violation(message, ("services", name, "schedule", "suspend"), hint, key=True)
        if service.build is None:
            continue
        contained = service.runtime_in(environment) == "container"
        keys = () if contained else _CONTAINER_KEYS
        paths: list[KeyPath] = [(key,) for key in keys if getattr(service, key)]
        if service.health.live is not None:
            paths.append(("health", "live"))
        for path in paths:
            where = "containers" if path[0] in _CONTAINER_KEYS else "Kubernetes"
            message = f"`{'.'.join(map(str, path))}` of a service is only for {where}."
            yield Violation(message, ("services", name, *path), hint, key=True)
    for name, resource in stack.resources.items():
        if resource.managed:
            hint = (
                "Move it to the environment of the cluster; on a machine, set "
                "LAPWING_RESOURCE_<NAME>_URL."
            )
            message = f"`managed` of a resource (`{name}`) is only for Kubernetes."
            yield Violation(message, ("resources", name, "managed"), hint, key=True)


def check_volumes(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """Volumes are folders below the source folder or absolute ones, and only used on a machine."""
    for name, service in stack.services.items():
        seen: list[PurePosixPath] = []
        for volume, text in service.volumes.items():
            at: KeyPath = ("services", name, "volumes", volume)
            path = PurePosixPath(text)
            if environment.target != "machine":
                named = [n for n, e in stack.environments.items() if e is environment]
                where = f", and {named[0]!r} is on a cluster" if named else ""
                message = f"Volume `{volume}`: `volumes` is only for `target: machine`{where}."
                hint = (
                    "Two releases cannot share a disk of the cluster while traffic switches. Use a "
                    "database or object storage, and write `volumes: null` in this environment."
                )
                yield Violation(message, at, hint)
            elif service.kind == "static":
                yield Violation("A static service has no process, so it has no volumes.", at)
            elif ".." in path.parts or len(path.parts) < (2 if path.is_absolute() else 1):
                message = f"Volume `{volume}`: {text!r} is not a folder below the source folder."
                yield Violation(message, at, "Write for instance `./uploads`.")
            elif any(path.is_relative_to(p) or p.is_relative_to(path) for p in seen):
                message = f"Volume `{volume}`: {text!r} overlaps with another volume."
                yield Violation(message, at, "Use one volume for both.")
            else:
                seen.append(path)


def check_replica_range(stack: Stack, _: Environment) -> Iterator[Violation]:
    """`min` of `replicas` is not above `max`; `cpu` is 1% or more; `requests` is for `web`."""
    for name, service in stack.services.items():
        least, most = service.replicas.min, service.replicas.max
        if most is not None and least > most:
            message = (
                f"`replicas.min` of `{name}` ({least}) is greater than `replicas.max` ({most})."
            )
            hint = f"Set `max` to {least} or more."
            yield Violation(message, ("services", name, "replicas", "min"), hint)
        if service.replicas.cpu is not None and service.replicas.cpu < 0.01:
            message = f"`replicas.cpu` of `{name}` is less than 1%."
            yield Violation(message, ("services", name, "replicas", "cpu"), "Set 1% or more.")
        if service.kind != "web" and service.replicas.requests is not None:
            message = f"Only a web service is scaled by requests; `{name}` is a {service.kind}."
            hint = "Remove `requests`."
            yield Violation(message, ("services", name, "replicas", "requests"), hint, key=True)


def check_smoke_tests(stack: Stack, _: Environment) -> Iterator[Violation]:
    """A smoke test has either `get` or `run`, as the kind of the service allows."""
    for name, service in stack.services.items():
        for index, test in enumerate(service.rollout.smoke):
            path: KeyPath = ("services", name, "rollout", "smoke", index)
            if (test.get is None) == (test.run is None):
                hint = "Write `- {get: /healthz}` or `- {run: pytest tests/smoke}`."
                yield Violation("A smoke test needs either `get` or `run`.", path, hint)
            elif test.run is not None and service.kind == "static":
                message = "A static service has no program; a smoke test cannot `run` a command."
                yield Violation(message, (*path, "run"), "Use `get`.")
            if test.get is not None and service.kind in ("worker", "job"):
                message = f"A {service.kind} serves no requests."
                yield Violation(message, (*path, "get"), "Use `run`.")


def check_limits(stack: Stack, _: Environment) -> Iterator[Violation]:
    """Timeouts and analysis limits can be exceeded and can be met."""
    for name, service in stack.services.items():
        at: KeyPath = ("services", name)
        analysis, timeout = service.rollout.analysis, service.timeout
        latency = analysis.max_p95 if analysis else None
        if timeout is not None and latency is not None and latency > timeout:
            message = (
                f"`max_p95` ({latency:g} s) is greater than `timeout` ({timeout:g} s), so it can "
                "never be exceeded."
            )
            hint = f"Set `max_p95` to less than {timeout:g}s."
            yield Violation(message, (*at, "rollout", "analysis", "max_p95"), hint)
        is_set = "analysis" in service.rollout.model_fields_set and analysis is not None
        if is_set and service.kind in ("worker", "job"):
            hint = "Remove it; use smoke tests with `run`."
            message = f"A {service.kind} serves no requests to analyze."
            yield Violation(message, (*at, "rollout", "analysis"), hint, key=True)
        if service.health.timeout > service.health.start_timeout:
            message = "`health.timeout` is greater than `health.start_timeout`."
            yield Violation(message, (*at, "health", "timeout"))


def check_migrations(stack: Stack, _: Environment) -> Iterator[Violation]:
    """A service with `migrate` has a process and a resource; no service has the name of its job."""
    for name, service in stack.services.items():
        at: KeyPath = ("services", name, "migrate")
        if service.migrate is None:
            continue
        if service.kind in ("static", "job"):
            message = f"`migrate` is not for {service.kind} services."
            yield Violation(message, at, key=True)
        elif not service.needs:
            hint = "Add the database to `needs`."
            message = f"`{name}` has `migrate`, but no database in `needs`."
            yield Violation(message, at, hint, key=True)
        elif job_of(name) in stack.services:
            message = f"`{job_of(name)}` is the name of the job for `migrate` of `{name}`."
            yield Violation(message, ("services", job_of(name)), "Rename this service.", key=True)
