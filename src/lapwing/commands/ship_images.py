"""Ship to a cluster: build, test, scan and push images, and commit manifests with their digests.

Images are pushed only when the manifests change, immediately before the commit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lapwing.commands.shipment import Shipment
from lapwing.desired.repository import DesiredRepository
from lapwing.plan.model import Deployment
from lapwing.system.git import find_revision
from lapwing.targets import cluster_images, guards, manifests, sources
from lapwing.targets.cluster_images import BuiltImages
from lapwing.targets.deployed_tags import update_tags_in
from lapwing.targets.planned import PlannedChange

if TYPE_CHECKING:
    from lapwing.registry.push import Progress


def ship_images(run: Shipment, progress: Progress) -> None:
    """Build, test, scan and push the images of an environment on a cluster, and commit."""
    loaded, options = run.loaded, run.options
    remote = run.remote(manifests.desired_url(loaded, options.remote))
    sources.wanted_services(loaded, options.services)
    built = _build_images(run)
    chosen = manifests.Images({**options.images, **built.references}, built.revisions)
    revision = find_revision(loaded.folder, run.settings.environ)
    deployment = Deployment(actor=options.actor, revision=revision)

    plans: list[PlannedChange] = []

    def attempt(repository: DesiredRepository) -> str | None:
        plan = manifests.plan(repository, loaded, options.services, chosen, deployment)
        plans.append(plan)
        checked = guards.check(repository, plan, "deploy")
        if not options.commit:
            return None
        run.result.changes = plan.changes
        if manifests.is_unchanged(repository, plan):
            return None
        built.deliver(run.settings, run.report, progress)
        return guards.commit(repository, checked)

    run.report(f"committing the manifests of {loaded.environment}")
    commit = remote.commit(attempt)
    if not options.commit:
        run.add_step("commit", "skipped", "`--check`")
        return
    registry = options.registry or loaded.registry
    if commit and registry is not None:
        update_tags_in(registry, plans[-1], run.settings, run.report)
    if commit and built.results:
        text = f"{len(built.results)} images to {built.destination.registry}"
        run.add_step("push", "done", text)
    run.add_commit(commit)


def _build_images(run: Shipment) -> BuiltImages:
    """Build the images of services without `image:`, and test and scan their sources."""
    loaded, options = run.loaded, run.options
    names = cluster_images.to_build(loaded, options.services, options.images)
    destination = cluster_images.registry_of(loaded, options.registry)
    if not names or destination is None:
        text = "no `registry` is set to push to" if names else "every service has an image"
        for name in ("build", "test", "scan"):
            run.add_step(name, "skipped", text)
        return BuiltImages(loaded)
    built = cluster_images.build(
        loaded, run.settings, names, destination, run.report, options.remote
    )
    run.add_step("build", "done", f"{len(names)} images")
    tested = [n for n in names if (b := loaded.stack.services[n].build) and b.test]
    run.test(sources.build_services(loaded, run.settings, tested, run.report))
    run.scan(names, [each.image for each in built.results])
    run.result.images = built.references
    return replace(built, options=replace(built.options, scan=False))
