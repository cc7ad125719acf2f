"""The Terraform files of a stack: one for each concern, always the same bytes.

A file without content is left out: without a database there is no `database.tf.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from lapwing.render.terraform import atlas, cluster, edge, foundation, managed, services
from lapwing.render.terraform.cloud import SHARED, Project, clouds
from lapwing.render.terraform.template import Body, render
from lapwing.stack.load import LoadedStack

Concern = Callable[[Project], Body | None]

_EVERYWHERE: Mapping[str, Concern] = {
    "versions": foundation.versions,
    "backend": foundation.backend,
    "variables": foundation.variables,
    "project": foundation.project,
}
_SHARED: Mapping[str, Concern] = {
    "state": lambda project: render("state", project, location=project.region.upper()),
    "registry": foundation.registry,
    "ci": partial(render, "ci"),
    "dns": edge.dns,
}
_ENVIRONMENT: Mapping[str, Concern] = {
    "budget": foundation.budget,
    "network": partial(render, "network"),
    "firewall": cluster.firewall,
    "identities": partial(render, "identities"),
    "cluster": partial(render, "cluster"),
    "secrets": cluster.secret_manager,
    "backups": cluster.backups,
    "database": atlas.atlas,
    "managed": managed.databases,
    "edge": edge.load_balancer,
    "gateway": edge.gateways,
    "protection": edge.protection,
    "certificates": edge.certificates,
}


def files(
    stacks: Iterable[LoadedStack], environment: str | None = None
) -> dict[str, dict[str, str]]:
    """Render all files: root (a folder) to file name to text.

    `stacks` are all environments of one stack with a cloud, because the shared root serves all of
    them; with `environment`, only the other root of its project is rendered.
    """
    found: dict[str, dict[str, str]] = {}
    projects = clouds(stacks)
    domains = tuple(d for p in projects[:1] for _, d in p.all_domains)
    for project in projects:
        here = [loaded.environment for loaded in project.environments]
        if environment is not None and project.folder != SHARED and environment not in here:
            continue
        own = _SHARED if project.folder == SHARED else _ENVIRONMENT
        bodies = {name: concern(project) for name, concern in {**_EVERYWHERE, **own}.items()}
        if project.folder != SHARED:
            bodies["names"] = edge.names(project, domains)
        services.enable_first(bodies)
        found[project.folder] = {
            f"{name}.tf.json": text(body) for name, body in bodies.items() if body
        }
    return found


def text(body: Body) -> str:
    """Write indented JSON, in the order of the tree."""
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"
