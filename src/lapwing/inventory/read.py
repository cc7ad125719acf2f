"""Render the environments of a stack and read their inventory.

Nothing is built: a service without an image gets a placeholder, so that the objects are complete.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal

from lapwing.inventory.images import built_images
from lapwing.inventory.kubernetes import from_kubernetes
from lapwing.inventory.machine import from_document
from lapwing.inventory.model import (
    Environment,
    HostMachine,
    Inventory,
    ManagedService,
    Project,
    StackInventory,
)
from lapwing.inventory.terraform import from_terraform
from lapwing.plan import make
from lapwing.plan.model import Deployment, Document
from lapwing.plan.names import secret_part
from lapwing.render.kubernetes import render
from lapwing.render.terraform.cloud import SHARED, clouds
from lapwing.render.terraform.files import files
from lapwing.stack.cloud import is_managed
from lapwing.stack.load import LoadedStack
from lapwing.stack.resource_reference import variable_of

PLACEHOLDER = "image.invalid"
"""The registry of images that are built when the stack is deployed."""


def read(stacks: Sequence[LoadedStack]) -> StackInventory:
    """Read the inventory of environments of one stack."""
    in_cloud = [loaded for loaded in stacks if loaded.settings.cloud is not None]
    projects = _projects(in_cloud)
    projects_of = {name: project for project in projects for name in project.environments}
    return StackInventory(
        stack=stacks[0].stack.stack if stacks else "",
        environments=tuple(
            _environment(loaded, projects_of.get(loaded.environment)) for loaded in stacks
        ),
        projects=tuple(p for p in projects if p.folder != SHARED),
        shared=next((p for p in projects if p.folder == SHARED), None),
    )


def _projects(stacks: Sequence[LoadedStack]) -> list[Project]:
    """Read every Terraform root. No environment belongs to the shared one."""
    roots = files(stacks)
    return [
        Project(
            folder=each.folder,
            identity=each.identity,
            region=each.region,
            environments=tuple(e.environment for e in each.environments if each.folder != SHARED),
            facts=from_terraform(json.loads(text) for text in roots[each.folder].values()),
        )
        for each in clouds(stacks)
    ]


def _environment(loaded: LoadedStack, project: Project | None) -> Environment:
    settings = loaded.settings
    on_machine = settings.target == "machine"
    if on_machine:
        facts = from_document(_document(loaded))
    else:
        facts = from_kubernetes(
            render.objects(render.prepare(loaded, _images(loaded))), _urls(loaded)
        )
        facts += Inventory(managed=tuple(_managed(loaded, project)))
    if settings.uses_argo_cd:
        facts = dataclasses.replace(facts, controllers=("Argo CD", *facts.controllers))
    return Environment(
        name=loaded.environment,
        target=settings.target,
        facts=facts,
        deployed_by="agent" if on_machine else "argocd" if settings.uses_argo_cd else "lapwing",
        has_root_application=settings.uses_argo_cd and settings.repository is not None,
        project=project.folder if project else None,
        built=tuple(built_images(loaded)),
        registry=loaded.registry or "",
        has_version_tags=loaded.registry is not None and loaded.registry == loaded.stack.registry,
        domain=settings.domain or "",
        machine=HostMachine(**dict(settings.machine)) if settings.machine else None,
        over_ssh=on_machine and settings.host is not None,
        usage=settings.usage,
        overhead=settings.overhead,
        budget=None if settings.budget is None else Decimal(str(settings.budget)),
    )


def _images(loaded: LoadedStack) -> dict[str, str]:
    """Name an image for each service that the stack file names none for."""
    return {
        name: f"{PLACEHOLDER}/{name}:built"
        for name, service in loaded.stack.services.items()
        if service.image is None
    }


def _document(loaded: LoadedStack) -> Document:
    """Make the document that a first deployment would commit."""
    services, resources = loaded.stack.services, loaded.stack.resources
    images = _images(loaded)
    planned = {
        name: service.image or images[name]
        for name, service in services.items()
        if service.runtime_in(loaded.settings) == "container"
    }
    return make.make(
        loaded,
        releases={name: make.Built("planned", "", planned.get(name)) for name in services},
        resources={name: make.resource(name, wanted) for name, wanted in resources.items()},
        secrets=defaultdict(str),
        deployment=Deployment(actor=""),
        current=None,
    )


def _urls(loaded: LoadedStack) -> dict[str, str]:
    """Map the Secret with the URL of each managed resource to the resource."""
    return {
        f"{loaded.stack.stack}-{secret_part(each.variable or variable_of(name))}": name
        for name, each in loaded.stack.resources.items()
        if is_managed(each, loaded.settings)
    }


def _managed(loaded: LoadedStack, project: Project | None) -> Iterable[ManagedService]:
    """Yield the databases outside of the cluster, but for those of Atlas.

    In a cloud they are those of its project; else the size is not known.
    """
    if project is not None:
        for each in project.facts.managed:
            environment, part = project.owner(each.part)
            if environment == loaded.environment:
                yield dataclasses.replace(each, part=part)
        return
    for name, resource in loaded.stack.resources.items():
        if is_managed(resource, loaded.settings):
            yield ManagedService(name, resource.kind, storage=resource.storage or 0)
