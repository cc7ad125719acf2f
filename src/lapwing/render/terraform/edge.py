"""Ingress from the internet: address, certificates, CDN, load balancer, DNS zones and records.

    client -> load balancer (HTTPS, CDN for static routes) -> edge (Envoy in the cluster) -> slots

The load balancer points at the edge and never at a Service whose selector flips: behind an endpoint
group such a flip causes 5 to 10 s of 502. The edge switches blue and green inside the cluster, one
service after the other. So there are two backend services over one endpoint group: one for the
routes of static services, with the CDN, and one for everything else. Environments that share a
project share the load balancer and its address; each has its own edge, group and backend services.

GKE creates the endpoint group when the edge is deployed (annotation `cloud.google.com/neg`), so it
is attached in a second apply, by `edge_zones`.
"""

from __future__ import annotations

from lapwing.plan.names import EDGE, edge_address, endpoint_group
from lapwing.render.terraform.cloud import Project, static_routes, zone_of, zones
from lapwing.render.terraform.template import Body, literal, merge, render
from lapwing.stack.load import LoadedStack


def load_balancer(project: Project) -> Body | None:
    """Render the global load balancer: HTTPS, and a redirect to it. None without a domain."""
    if not project.domains:
        return None
    names = [environment for environment, _ in project.domains]
    served = [loaded for loaded in project.environments if loaded.environment in names]
    return render(
        "edge",
        project,
        groups={
            n: render(
                "endpoint_group", project, environment=n, group=endpoint_group(project.stack, n)
            )
            for n in names
        },
        backends=_backends(project, served),
        default=_backend_of(f"edge-{names[0]}"),
        hosts=[{"hosts": [domain], "path_matcher": name} for name, domain in project.domains],
        matchers=[_matcher(loaded) for loaded in served],
    )


def gateways(project: Project) -> Body | None:
    """Render what a load balancer that GKE makes refers to: an address, and the TLS policy."""
    if not project.gke_domains:
        return None
    body = merge(
        *(
            render("gateway", project, environment=e, address=edge_address(e))
            for e, _ in project.gke_domains
        )
    )
    if project.domains:  # The load balancer of this root has the policy, too.
        del body["resource"]["google_compute_ssl_policy"]
    return body


def _backends(project: Project, served: list[LoadedStack]) -> Body:
    """Render the backend services of each environment: one for its edge, one for its CDN."""
    found: Body = {}
    for loaded in served:
        for role in ("edge", "static") if static_routes(loaded) else ("edge",):
            name = f"{role}-{loaded.environment}"
            found[name] = render(
                "backend_service",
                project,
                name=name,
                environment=loaded.environment,
                cdn=role == "static",
            )
            if role == "edge":
                del found[name]["compression_mode"], found[name]["cdn_policy"]
    return found


def _matcher(loaded: LoadedStack) -> Body:
    """Route static paths through the CDN and every other path to the edge; the longest wins."""
    rules = [
        {"paths": _paths(route), "service": _service(loaded, route)}
        for route in sorted(s.route for s in loaded.stack.services.values() if s.route)
        if route != "/"
    ]
    matcher: Body = {"name": loaded.environment, "default_service": _service(loaded, "/")}
    return {**matcher, "path_rule": rules} if rules else matcher


def _paths(route: str) -> list[str]:
    bare = literal(route.rstrip("/"))
    return [bare, f"{bare}/*"]


def _service(loaded: LoadedStack, route: str) -> str:
    role = "static" if route in static_routes(loaded) else "edge"
    return _backend_of(f"{role}-{loaded.environment}")


def _backend_of(name: str) -> str:
    return f"${{google_compute_backend_service.{name}.id}}"


def protection(project: Project) -> Body | None:
    """Render Cloud Armor, which is off until `cloud_armor` is true."""
    return render("protection", project) if project.domains else None


def certificates(project: Project) -> Body:
    """Render a managed certificate for each domain, authorised through DNS.

    So it is issued before the domain points at the load balancer.
    """
    return merge(
        *(
            render("certificates", project, environment=e, domain=d)
            for e, d in project.certified_domains
        )
    )


def names(project: Project, every_domain: tuple[str, ...]) -> Body:
    """Render the DNS records of the project's domains, in zones of the shared project."""
    found = zones(every_domain)
    bodies = []
    for environment, domain in project.all_domains:
        own = (environment, domain) in project.gke_domains
        address = edge_address(environment) if own else EDGE
        zone = zone_of(domain, found).name
        bodies.append(
            render(
                "names", project,
                environment=environment, domain=domain, zone=zone, address=address,
            )
        )  # fmt: skip
        if (environment, domain) not in project.certified_domains:
            del bodies[-1]["resource"]["google_dns_record_set"][f"{environment}_proof"]
    return merge(*bodies)


def dns(project: Project) -> Body:
    """Render a zone for each domain; its parent zone has to delegate to the name servers."""
    found = zones([domain for _, domain in project.all_domains])
    return merge(*(render("dns", project, zone=z.name, domain=z.domain) for z in found))
