"""Rules that need more than one field. Pure.

Each rule is a small generator over a stack (as it is in one environment) that yields what is wrong
and the path in the file. `RULES` is the list; adding a rule is writing one function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath as Pure

from lapwing.stack import regions, release_rules, scanning
from lapwing.stack.breach import Breach, Path
from lapwing.stack.explain import did_you_mean
from lapwing.stack.model import Environment, Resource, Service, Stack
from lapwing.stack.resource_reference import PARTS, references

RESERVED = {"PORT", "HOST", "PATH", "GUNICORN_CMD_ARGS"}
PROJECT = r"[a-z][a-z0-9-]{4,28}[a-z0-9]"
"""A project id of Google Cloud: 6 to 30 of these."""
REGION = r"[a-z]+(-[a-z]+)+[0-9]+"
TIERS = (
    "M0", "M10", "M20", "M30", "M40", "M50", "M60", "M80", "M140", "M200", "M300",
)  # fmt: skip
"""Cluster tiers of MongoDB Atlas on Google Cloud, the smallest first (Atlas: Cluster Tier)."""
DOMAIN = r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


Rule = Callable[[Stack, Environment], Iterator[Breach]]


def needs_exist(stack: Stack, _: Environment) -> Iterator[Breach]:
    """Whatever a service needs is in the file."""
    for name, service in stack.services.items():
        for index, need in enumerate(service.needs):
            if need in stack.resources:
                continue
            path = ("services", name, "needs", index)
            if need in stack.services:
                yield Breach(
                    f"`{need}` is a service; `needs` names resources.",
                    path,
                    "Services reach each other by their routes.",
                )
            else:
                known = ", ".join(stack.resources) or "none"
                yield Breach(
                    f"There is no resource `{need}`.",
                    path,
                    did_you_mean(need, stack.resources) or f"Resources of this stack: {known}.",
                )


def jobs_run_after_services(stack: Stack, _: Environment) -> Iterator[Breach]:
    """A job runs after services, and the URL of each has a variable of its own."""
    for name, service in stack.services.items():
        taken = {*service.env, *service.secret_names}
        taken |= {stack.resources[n].variable or "" for n in service.needs if n in stack.resources}
        taken |= {variable_of(n) for n in service.needs}
        if service.after and service.kind != "job":
            hint = "Use `kind: job`, or remove `after`."
            message = f"A {service.kind} service cannot run `after` others; only a job can."
            yield Breach(message, ("services", name, "after"), hint, key=True)
            continue
        for index, before in enumerate(service.after):
            path: Path = ("services", name, "after", index)
            others = [n for n, s in stack.services.items() if s.kind != "job"]
            known = "Services of this stack: " + (", ".join(others) or "none") + "."
            if before not in stack.services:
                hint = did_you_mean(before, others) or known
                yield Breach(f"There is no service `{before}`.", path, hint)
            elif stack.services[before].kind == "job":
                message = f"`{before}` is a job; `after` names services that go on running."
                yield Breach(message, path, known)
            elif variable_of(before) in taken and stack.services[before].kind != "worker":
                message = f"`{variable_of(before)}` is to be the URL of `{before}`."
                yield Breach(message, path, "Give the other variable another name.")


def routes_differ(stack: Stack, _: Environment) -> Iterator[Breach]:
    """No two services have the same route."""
    taken: dict[str, str] = {}
    for name, service in stack.services.items():
        if service.route is None:
            continue
        route = service.route.rstrip("/") or "/"
        if route in taken:
            yield Breach(
                f"`{taken[route]}` and `{name}` have the same route, `{route}`.",
                ("services", name, "route"),
                "Give each its own path.",
            )
        taken.setdefault(route, name)


def routes_are_clean(stack: Stack, _: Environment) -> Iterator[Breach]:
    """A route is a path that no proxy would rewrite."""
    for name, service in stack.services.items():
        route = service.route
        if route is not None and ("//" in route or re.search(r"(^|/)\.\.?(/|$)", route)):
            yield Breach(
                f"Route `{route}` has `//`, `.` or `..` in it.", ("services", name, "route")
            )


def kinds_fit(stack: Stack, _: Environment) -> Iterator[Breach]:
    """What a service has fits its kind."""
    for name, service in stack.services.items():
        at: Path = ("services", name)
        if service.kind == "static":
            yield from _static(service, at)
        elif service.static is not None:
            yield Breach(f"A {service.kind} service has no `static` folder.", (*at, "static"))
        if service.kind in ("worker", "job") and service.route is not None:
            yield Breach(
                f"A {service.kind} has no route: it listens on no port.",
                (*at, "route"),
                "Use `kind: web`, or remove the route.",
            )
        if service.kind in ("web", "static") and service.route is None:
            yield Breach(f"`{name}` has no route.", at, "Add `route: /`.", key=True)
        if service.kind == "worker" and service.health.path is not None:
            yield Breach("A worker listens on no port, so it has no health path.", (*at, "health"))
        built = service.build is not None
        if built and service.kind != "static" and service.command is None:
            yield Breach(
                f"`{name}` has no command.", at, "Add `command:`, what starts it.", key=True
            )
        if service.kind == "job" and service.replicas.min > 1:
            yield Breach("A job runs once; it has no replicas.", (*at, "replicas"))


def _static(service: Service, at: Path) -> Iterator[Breach]:
    if service.static is None:
        yield Breach("A static service has to name its `static` folder.", at, key=True)
    elif Pure(service.static).is_absolute() or ".." in Pure(service.static).parts:
        yield Breach(
            "The folder of built files lies outside of the source.",
            (*at, "static"),
            "Write it relative to the folder of `build`, such as `dist`.",
        )
    if service.command is not None:
        yield Breach(
            "A static service is files only; it has no command.",
            (*at, "command"),
            "Remove `command`, or `static` if it is a program.",
        )
    for variable in ("PORT", "port"):
        if variable in service.env:
            yield Breach("A static service has no port.", (*at, "env", variable), key=True)
    if service.secrets:
        yield Breach("A static service has no process that could keep a secret.", (*at, "secrets"))
    if service.needs:
        yield Breach("A static service has no process that could use this.", (*at, "needs"))


def one_source(stack: Stack, _: Environment) -> Iterator[Breach]:
    """Each service comes from exactly one place."""
    for name, service in stack.services.items():
        given = [k for k in ("build", "dockerfile", "image") if getattr(service, k) is not None]
        at: Path = ("services", name)
        if "image" in given and len(given) > 1:
            yield Breach(
                f"`{name}` has both `{given[0]}` and `image`.", (*at, "image"), "Keep one of them."
            )
        elif not given:
            yield Breach(f"`{name}` has no source.", at, "Add `build:` with its folder.", key=True)


def machine_runs_sources(stack: Stack, environment: Environment) -> Iterator[Breach]:
    """What runs on a machine is built from source."""
    if environment.target != "machine":
        return
    for name, service in stack.services.items():
        container = "dockerfile" if service.dockerfile is not None else "image"
        if service.build is None and getattr(service, container) is not None:
            yield Breach(
                f"`{name}` is a container; containers on one machine are not there yet.",
                ("services", name, container),
                "Give `build:` with the folder of the source; Lapwing runs it as a process.",
            )


def replicas_ordered(stack: Stack, _: Environment) -> Iterator[Breach]:
    """The least number of replicas is not above the most."""
    for name, service in stack.services.items():
        most = service.replicas.max
        if most is not None and service.replicas.min > most:
            yield Breach(
                f"`{name}` has at least {service.replicas.min} replicas, but at most {most}.",
                ("services", name, "replicas", "min"),
                "Make `max` the larger one.",
            )


def variables_clash(stack: Stack, _: Environment) -> Iterator[Breach]:
    """A variable has one meaning, and none of Lapwing's own."""
    for name, service in stack.services.items():
        at: Path = ("services", name)
        resources: dict[str, str] = {}
        for index, need in enumerate(service.needs):
            if need in stack.resources:
                variable = stack.resources[need].variable or variable_of(need)
                if resources.setdefault(variable, need) != need:
                    yield Breach(
                        f"`{variable}` would be the URL of both `{resources[variable]}` and "
                        f"`{need}`.",
                        (*at, "needs", index),
                        f"Set `variable:` of `{need}` to another name.",
                    )
        for variable in service.env:
            if variable in service.secret_names:
                yield Breach(
                    f"`{variable}` is both in `env` and in `secrets`.",
                    (*at, "env", variable),
                    "Keep it in `secrets`.",
                    key=True,
                )
            if variable in RESERVED or variable.startswith("LAPWING_"):
                yield Breach(f"`{variable}` is set by Lapwing.", (*at, "env", variable), key=True)
            if variable in resources:
                yield Breach(
                    f"`{variable}` is the URL of `{resources[variable]}`.",
                    (*at, "env", variable),
                    f"Set `variable:` of `{resources[variable]}` to another name.",
                    key=True,
                )
        for index, secret in enumerate(service.secret_names):
            if secret in RESERVED or secret.startswith("LAPWING_"):
                yield Breach(f"`{secret}` is set by Lapwing.", (*at, "secrets", index))
            if secret in resources:
                yield Breach(
                    f"`{secret}` is the URL of `{resources[secret]}`, which needs no secret.",
                    (*at, "secrets", index),
                    "Remove it here; LAPWING_RESOURCE_<NAME>_URL gives a URL of your own.",
                )


def resources_are_told_apart(stack: Stack, _: Environment) -> Iterator[Breach]:
    """A resource has a name and a variable that nothing else has."""
    for name, resource in stack.resources.items():
        if name in stack.services:
            yield Breach(
                f"`{name}` is the name of a service, too.",
                ("resources", name),
                "Give one of them another name.",
                key=True,
            )
        variable = resource.variable or ""
        if variable in RESERVED or variable.startswith("LAPWING_"):
            yield Breach(f"`{variable}` is set by Lapwing.", ("resources", name, "variable"))


def secrets_stay_off_command_lines(stack: Stack, _: Environment) -> Iterator[Breach]:
    """A command does not carry a secret, which every user of the machine could read with `ps`."""
    for name, service in stack.services.items():
        for secret in service.secret_names:
            if service.command and re.search(rf"\$\{{?{secret}\b", service.command):
                yield Breach(
                    f"The command carries the secret `{secret}`; `ps` would show it.",
                    ("services", name, "command"),
                    "Let the program read it from its environment.",
                )


def smoke_is_one_thing(stack: Stack, _: Environment) -> Iterator[Breach]:
    """A smoke test is a request or a command."""
    for name, service in stack.services.items():
        for index, test in enumerate(service.rollout.smoke):
            path: Path = ("services", name, "rollout", "smoke", index)
            if (test.get is None) == (test.run is None):
                yield Breach(
                    "A smoke test has either `get` or `run`.",
                    path,
                    "Write `- {get: /healthz}` or `- {run: pytest tests/smoke}`.",
                )
            elif test.run is not None and service.kind == "static":
                yield Breach(
                    "A static service has no program to run a command in.",
                    (*path, "run"),
                    "Use `get`.",
                )
        if service.rollout.smoke and service.kind in ("worker", "job"):
            gets = [i for i, t in enumerate(service.rollout.smoke) if t.get is not None]
            for index in gets:
                yield Breach(
                    f"A {service.kind} answers no requests.",
                    ("services", name, "rollout", "smoke", index, "get"),
                    "Use `run`.",
                )


def limits_make_sense(stack: Stack, _: Environment) -> Iterator[Breach]:
    """A limit can be reached and can be kept."""
    for name, service in stack.services.items():
        analysis, timeout = service.rollout.analysis, service.timeout
        latency = analysis.max_p95 if analysis else None
        if timeout is not None and latency is not None and latency > timeout:
            yield Breach(
                f"`max_p95` ({latency:g} s) is more than `timeout` ({timeout:g} s): no request "
                "could ever be that slow.",
                ("services", name, "rollout", "analysis", "max_p95"),
            )
        is_watched = "analysis" in service.rollout.model_fields_set and analysis is not None
        if is_watched and service.kind in ("worker", "job"):
            yield Breach(
                f"A {service.kind} gets no requests that an analysis could watch.",
                ("services", name, "rollout", "analysis"),
                "Remove it; smoke tests with `run` can check it.",
                key=True,
            )
        if service.health.timeout > service.health.start_timeout:
            yield Breach(
                "One health check may take longer than the whole start.",
                ("services", name, "health", "timeout"),
            )


def references_lead_somewhere(stack: Stack, environment: Environment) -> Iterator[Breach]:
    """A `${db.host}` names a resource that the service needs, and a part of it."""
    for name, service in stack.services.items():
        for variable, value in service.env.items():
            at: Path = ("services", name, "env", variable)
            for resource, part in references(value):
                if resource not in service.needs:
                    near = did_you_mean(resource, service.needs)
                    hint = near or f"Add it to `needs` of `{name}`, or remove the reference."
                    yield Breach(f"`{name}` does not need a `{resource}`.", at, hint)
                elif part not in PARTS:
                    known = ", ".join(f"`{p}`" for p in PARTS)
                    hint = did_you_mean(part, PARTS) or f"Parts are {known}."
                    yield Breach(f"`{resource}` has no part `{part}`.", at, hint)
                elif resource in stack.resources and is_managed(
                    stack.resources[resource], environment
                ):
                    yield Breach(
                        f"Parts of `{resource}` are not known here: it is managed, and its URL is "
                        "a secret.",
                        at,
                        "Let the program read the URL from its variable, or keep the parts in "
                        "`secrets`.",
                    )


def is_managed(resource: Resource, environment: Environment) -> bool:
    """Whether nothing is run for a resource in an environment, because somebody else runs it."""
    in_cloud = environment.cloud is not None and resource.kind == "mongodb"
    return environment.target == "kubernetes" and (resource.managed or in_cloud)


_OF_A_CLUSTER = ("port", "user", "scratch", "migrate", "after")


def clusters_have_what_is_theirs(stack: Stack, environment: Environment) -> Iterator[Breach]:
    """What only a cluster can do is not asked of a machine, which would not do it."""
    if environment.target != "machine":
        return
    for key in ("delivery", "rollouts", "repository", "gateway"):
        if getattr(environment, key) is not None:
            hint = "Use `target: kubernetes`."
            yield Breach(f"A machine environment has no `{key}`.", (key,), hint, key=True)
    hint = "Move it below the environment that is a cluster: `environments: NAME: services: ...`."
    for name, service in stack.services.items():
        if service.build is None:
            continue
        for key in _OF_A_CLUSTER:
            if getattr(service, key):
                at: Path = ("services", name, key)
                yield Breach(f"A machine does not know `{key}` of a service.", at, hint, key=True)
        if service.health.live is not None:
            at = ("services", name, "health", "live")
            message = "A machine does not know `live`: it starts a replica again when it ends."
            yield Breach(message, at, hint, key=True)
    for name, resource in stack.resources.items():
        if resource.managed:
            yield Breach(
                f"`managed` is for clusters; a machine binds `{name}` by "
                "LAPWING_RESOURCE_<NAME>_URL.",
                ("resources", name, "managed"),
                "Move it below the environment that is a cluster: `environments: NAME: resources:`",
                key=True,
            )


def argo_has_a_cloud(_: Stack, environment: Environment) -> Iterator[Breach]:
    """Argo CD takes secrets from a cloud's secret manager: they cannot be in git."""
    if environment.delivery == "argo" and environment.target == "kubernetes":
        if environment.cloud is None:
            yield Breach(
                "`delivery: argo` needs a `cloud`: secrets come from its secret manager.",
                ("delivery",),
                "Add `cloud:`, or use `delivery: direct`.",
            )
    elif (
        environment.repository is not None
        and environment.target == "kubernetes"
        and (environment.cloud is None or environment.delivery == "direct")
    ):
        yield Breach(
            "Only Argo CD reads a `repository`.",
            ("repository",),
            "Remove it, or use `delivery: argo`.",
            key=True,
        )


def gateways_have_a_domain(_: Stack, environment: Environment) -> Iterator[Breach]:
    """A Gateway or an Ingress answers to a host name."""
    is_cluster = environment.target == "kubernetes"
    if is_cluster and environment.gateway is not None and environment.domain is None:
        yield Breach(
            "A `gateway` needs a `domain` to answer to.",
            ("gateway",),
            "Add `domain:`, such as `domain: app.example.com`.",
            key=True,
        )


def migrations_have_a_database(stack: Stack, _: Environment) -> Iterator[Breach]:
    """What migrates has a process and needs a resource."""
    for name, service in stack.services.items():
        if service.migrate is None:
            continue
        at: Path = ("services", name, "migrate")
        if service.kind in ("static", "job"):
            yield Breach(f"A {service.kind} service does not migrate.", at, key=True)
        elif not service.needs:
            hint = "Name the database in `needs`."
            yield Breach(f"`{name}` needs no resource that could be migrated.", at, hint, key=True)


def ports_have_listeners(stack: Stack, _: Environment) -> Iterator[Breach]:
    """What listens on no port has none."""
    for name, service in stack.services.items():
        if service.port is not None and service.kind in ("worker", "job"):
            message = f"A {service.kind} listens on no port."
            yield Breach(message, ("services", name, "port"), key=True)
        if service.health.live is not None and service.kind in ("worker", "job"):
            message = f"A {service.kind} listens on no port, so it has no health path."
            yield Breach(message, ("services", name, "health", "live"), key=True)


def domain_is_one(_: Stack, environment: Environment) -> Iterator[Breach]:
    """A domain is a host name, without scheme, port or path."""
    domain = environment.domain
    if domain is not None and not re.fullmatch(DOMAIN, domain):
        hint = "Write the host name only, such as `app.example.com`."
        yield Breach(f"{domain!r} is not a domain.", ("domain",), hint)


def previews_are_told_apart(stack: Stack, _: Environment) -> Iterator[Breach]:
    """No environment is called `preview`: that host name shows candidates."""
    if "preview" in stack.environments:
        yield Breach(
            "An environment cannot be called `preview`: that host name shows candidates.",
            ("environments", "preview"),
            "Call it `review`, for example.",
            key=True,
        )


def cluster_has_cloud(_: Stack, environment: Environment) -> Iterator[Breach]:
    """Only a cluster is in a cloud."""
    if environment.target == "machine" and environment.cloud is not None:
        yield Breach(
            "A machine environment has no cloud.", ("cloud",), "Use `target: kubernetes`.", key=True
        )


def cloud_names_are_possible(_: Stack, environment: Environment) -> Iterator[Breach]:
    """A region and a project id have the form that the cloud demands."""
    cloud = environment.cloud
    if cloud is None:
        return
    yield from _region(cloud.region, ("cloud", "region"), new=cloud.new_region)
    for key in ("project", "shared_project"):
        given: str | None = getattr(cloud, key)
        if given is None or re.fullmatch(PROJECT, given):
            continue
        length = f" It has {len(given)} characters." if len(given) > 30 else ""
        yield Breach(
            f"{given!r} is not a project id.{length}",
            ("cloud", key),
            "A project id has 6 to 30 lower-case letters, digits and hyphens, begins with a letter "
            "and does not end with a hyphen.",
        )


def _region(region: str, at: Path, *, new: bool) -> Iterator[Breach]:
    """A region is one of the cloud; `new` takes one that is not on the list."""
    looks_like_one = re.fullmatch(REGION, region) is not None
    if region in regions.gcp() or (new and looks_like_one):
        return
    near = did_you_mean(region, regions.gcp())
    newer = "If it is newer than this version of Lapwing, add `new_region: true` to `cloud`."
    hint = near or (newer if looks_like_one else "A region looks like `europe-west1`.")
    yield Breach(f"{region!r} is not a region of Google Cloud.", at, hint)


def copies_are_somewhere(stack: Stack, environment: Environment) -> Iterator[Breach]:
    """The second region of a database is a region, too."""
    new = environment.cloud is not None and environment.cloud.new_region
    for name, resource in stack.resources.items():
        if resource.replica_region is not None:
            at: Path = ("resources", name, "replica_region")
            yield from _region(resource.replica_region, at, new=new)


def clouds_agree(stack: Stack, _: Environment) -> Iterator[Breach]:
    """Environments of one project have one region, and all name one shared project."""
    regions_of: dict[str, tuple[str, str]] = {}
    shared: tuple[str, str] | None = None
    for name, environment in stack.environments.items():
        cloud = environment.cloud
        if cloud is None:
            continue
        at: Path = ("environments", name, "cloud")
        project, common = project_of(stack, name), cloud.shared_project or f"{stack.stack}-shared"
        first, region = regions_of.setdefault(project, (name, cloud.region))
        if region != cloud.region:
            yield Breach(
                f"`{first}` has the same project, `{project}`, but is in {region}.",
                (*at, "region"),
                "Environments of one project share its cluster: give them one region.",
            )
        shared = shared or (name, common)
        if common != shared[1]:
            yield Breach(
                f"The shared project of `{shared[0]}` is `{shared[1]}`, not `{common}`.",
                (*at, "shared_project"),
                "A stack has one shared project: name it the same everywhere.",
            )
        if project == common:
            yield Breach(
                f"`{project}` is the shared project, too.",
                (*at, "project"),
                "Give what environments share a project of its own.",
            )


def project_of(stack: Stack, environment: str) -> str:
    """The project id of an environment that has a cloud."""
    cloud = stack.environments[environment].cloud
    return (cloud.project if cloud else None) or f"{stack.stack}-{environment}"


def shared_project_of(stack: Stack) -> str:
    """The project id of what environments share."""
    clouds = (e.cloud for e in stack.environments.values() if e.cloud)
    return next((c.shared_project for c in clouds if c.shared_project), f"{stack.stack}-shared")


def tiers_exist(stack: Stack, _: Environment) -> Iterator[Breach]:
    """A tier is one of MongoDB Atlas, for a mongodb, and auto-scaling goes up."""
    for name, resource in stack.resources.items():
        at: Path = ("resources", name)
        for key in ("tier", "max_tier", "replica_region"):
            given: str | None = getattr(resource, key)
            if given is None:
                continue
            if resource.kind != "mongodb":
                yield Breach(
                    f"Only a managed MongoDB has `{key}`; `{name}` is {resource.kind}.",
                    (*at, key),
                    "Use `resources: {cpu, memory}` for what runs in the cluster.",
                    key=True,
                )
            elif key != "replica_region" and given not in TIERS:
                known = f"Tiers: {', '.join(TIERS)}."
                near = next((t for t in TIERS if t.lower() == given.lower()), None)
                hint = f"Did you mean `{near}`?" if near else known
                yield Breach(f"MongoDB Atlas has no tier {given!r}.", (*at, key), hint)
        tier, most = resource.tier or "M10", resource.max_tier
        if tier in TIERS and most in TIERS and TIERS.index(most) < TIERS.index(tier):
            yield Breach(f"`max_tier` ({most}) is smaller than `tier` ({tier}).", (*at, "max_tier"))


RULES: tuple[Rule, ...] = (
    needs_exist,
    jobs_run_after_services,
    routes_differ,
    routes_are_clean,
    kinds_fit,
    one_source,
    machine_runs_sources,
    replicas_ordered,
    variables_clash,
    resources_are_told_apart,
    secrets_stay_off_command_lines,
    smoke_is_one_thing,
    limits_make_sense,
    domain_is_one,
    previews_are_told_apart,
    cluster_has_cloud,
    cloud_names_are_possible,
    copies_are_somewhere,
    clouds_agree,
    tiers_exist,
    references_lead_somewhere,
    clusters_have_what_is_theirs,
    argo_has_a_cloud,
    gateways_have_a_domain,
    migrations_have_a_database,
    ports_have_listeners,
    scanning.acceptances_differ,
    *release_rules.RULES,
)


def variable_of(name: str) -> str:
    """The variable that tells the URL of a resource, where the file names none, or of a service
    that a job runs after."""
    return name.upper().replace("-", "_") + "_URL"
