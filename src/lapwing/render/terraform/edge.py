"""Ingress from the internet: address, certificates, CDN, load balancer, DNS records.

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

from typing import Any

from lapwing.plan.names import endpoint_group
from lapwing.render.terraform.cloud import Project, static_routes, zone_of, zones
from lapwing.render.terraform.foundation import PROJECT, Body, literal, named
from lapwing.render.terraform.network import EDGE_PORT
from lapwing.stack.load import LoadedStack


def load_balancer(project: Project) -> Body | None:
    """Render the global load balancer: HTTPS, and a redirect to it. None without a domain."""
    if not project.domains:
        return None
    return {
        "data": {
            "google_compute_network_endpoint_group": {
                environment: {
                    "for_each": f'${{lookup(var.edge_zones, "{environment}", [])}}',
                    "project": PROJECT,
                    "name": endpoint_group(project.stack, environment),
                    "zone": "${each.value}",
                }
                for environment, _ in project.domains
            }
        },
        "resource": {
            **_frontend(),
            "google_compute_health_check": {
                "edge": named(
                    "edge",
                    check_interval_sec=5,
                    timeout_sec=2,
                    http_health_check={"port": EDGE_PORT, "request_path": "/ready"},
                    log_config={"enable": True},
                )
            },
            "google_compute_backend_service": _backends(project),
            "google_compute_url_map": {
                "edge": _routes(project),
                "redirect": named(
                    "redirect",
                    default_url_redirect={
                        "https_redirect": True,
                        "redirect_response_code": "MOVED_PERMANENTLY_DEFAULT",
                        "strip_query": False,
                    },
                ),
            },
        },
        "output": {
            "address": {
                "description": "The address of every domain.",
                "value": "${google_compute_global_address.edge.address}",
            }
        },
    }


def _frontend() -> Body:
    certificates = "//certificatemanager.googleapis.com/"
    return {
        "google_compute_global_address": {"edge": named("edge")},
        "google_compute_ssl_policy": {
            "edge": named("edge", profile="MODERN", min_tls_version="TLS_1_2")
        },
        "google_compute_target_https_proxy": {
            "edge": named(
                "edge",
                url_map="${google_compute_url_map.edge.id}",
                certificate_map=f"{certificates}${{google_certificate_manager_certificate_map.edge.id}}",
                ssl_policy="${google_compute_ssl_policy.edge.id}",
                quic_override="ENABLE",
            )
        },
        "google_compute_target_http_proxy": {
            "redirect": {
                "//": "Port 80 only redirects to HTTPS.",
                **named("redirect", url_map="${google_compute_url_map.redirect.id}"),
            }
        },
        "google_compute_global_forwarding_rule": {
            "https": _forward("https", 443, "google_compute_target_https_proxy.edge"),
            "redirect": _forward("redirect", 80, "google_compute_target_http_proxy.redirect"),
        },
    }


def _forward(name: str, port: int, proxy: str) -> Body:
    return named(
        name,
        load_balancing_scheme="EXTERNAL_MANAGED",
        ip_address="${google_compute_global_address.edge.id}",
        ip_protocol="TCP",
        port_range=str(port),
        target=f"${{{proxy}.id}}",
    )


def _backends(project: Project) -> Body:
    """Render the backend services of each environment: one for its edge, one for its CDN."""
    found: Body = {}
    for loaded in project.environments:
        environment = loaded.environment
        if environment not in dict(project.domains):
            continue
        found[f"edge-{environment}"] = _backend("edge", environment, {"enable_cdn": False})
        if static_routes(loaded):
            found[f"static-{environment}"] = _backend("static", environment, _cdn())
    return found


def _backend(role: str, environment: str, cdn: Body) -> Body:
    return {
        **named(f"{role}-{environment}"),
        "load_balancing_scheme": "EXTERNAL_MANAGED",
        "protocol": "HTTP",
        "timeout_sec": 3600,
        "connection_draining_timeout_sec": 300,
        "health_checks": ["${google_compute_health_check.edge.id}"],
        "security_policy": "${one(google_compute_security_policy.edge[*].self_link)}",
        **cdn,
        "dynamic": {
            "backend": {
                "for_each": f"${{data.google_compute_network_endpoint_group.{environment}}}",
                "content": {
                    "group": "${backend.value.id}",
                    "balancing_mode": "RATE",
                    "max_rate_per_endpoint": 1000,
                },
            }
        },
        "log_config": {"enable": True, "sample_rate": 1.0},
    }


def _cdn() -> Body:
    """Configure the CDN to cache what the edge allows: hashed files for long, index.html never.

    So a switch of slots is visible through the CDN at once.
    """
    return {
        "enable_cdn": True,
        "compression_mode": "AUTOMATIC",
        "cdn_policy": {
            "cache_mode": "USE_ORIGIN_HEADERS",
            "negative_caching": False,
            "cache_key_policy": {
                "include_host": True,
                "include_protocol": True,
                "include_query_string": True,
            },
        },
    }


def _routes(project: Project) -> Body:
    """Route static paths through the CDN and every other path to the edge; the longest wins."""
    domains = dict(project.domains)
    matchers: list[Body] = []
    for loaded in project.environments:
        if loaded.environment not in domains:
            continue
        rules = [
            {"paths": _paths(route), "service": _service(loaded, route)}
            for route in sorted(s.route for s in loaded.stack.services.values() if s.route)
            if route != "/"
        ]
        matcher: Body = {
            "name": loaded.environment,
            "default_service": _service(loaded, "/"),
        }
        matchers.append({**matcher, "path_rule": rules} if rules else matcher)
    return {
        **named("edge"),
        "//": "Requests with an unknown host go to the edge of the first environment.",
        "default_service": _backend_of(f"edge-{project.domains[0][0]}"),
        "host_rule": [
            {"hosts": [domain], "path_matcher": environment}
            for environment, domain in project.domains
        ],
        "path_matcher": matchers,
    }


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
    if not project.domains:
        return None
    everyone: Body = {"match": {"versioned_expr": "SRC_IPS_V1", "config": {"src_ip_ranges": ["*"]}}}
    rules: list[dict[str, Any]] = [
        {
            "action": "deny(403)",
            "priority": 900,
            "description": "Log4Shell and related attacks (CVE-2021-44228).",
            "match": {"expr": {"expression": "evaluatePreconfiguredExpr('cve-canary')"}},
        },
        {
            "action": "throttle",
            "priority": 1000,
            "description": "At most 600 requests a minute per address.",
            **everyone,
            "rate_limit_options": {
                "conform_action": "allow",
                "exceed_action": "deny(429)",
                "enforce_on_key": "IP",
                "rate_limit_threshold": {"count": 600, "interval_sec": 60},
            },
        },
        {
            "action": "allow",
            "priority": 2147483647,
            "description": "Allow other requests.",
            **everyone,
        },
    ]
    return {
        "resource": {
            "google_compute_security_policy": {
                "edge": {
                    "count": "${var.cloud_armor ? 1 : 0}",
                    **named("edge", rule=rules),
                }
            }
        }
    }


def certificates(project: Project) -> Body | None:
    """Render a managed certificate for each domain, authorised through DNS.

    So it is issued before the domain points at the load balancer.
    """
    if not project.domains:
        return None
    names = dict(project.domains)
    needs = ["google_project_service.certificatemanager"]
    return {
        "resource": {
            "google_certificate_manager_dns_authorization": {
                name: named(name, domain=domain) for name, domain in names.items()
            },
            "google_certificate_manager_certificate": {
                name: named(
                    name,
                    managed={
                        "domains": [domain],
                        "dns_authorizations": [
                            f"${{google_certificate_manager_dns_authorization.{name}.id}}"
                        ],
                    },
                    depends_on=needs,
                )
                for name, domain in names.items()
            },
            "google_certificate_manager_certificate_map": {"edge": named("edge", depends_on=needs)},
            "google_certificate_manager_certificate_map_entry": {
                name: named(
                    name,
                    map="${google_certificate_manager_certificate_map.edge.name}",
                    hostname=domain,
                    certificates=[f"${{google_certificate_manager_certificate.{name}.id}}"],
                )
                for name, domain in names.items()
            },
        }
    }


def names(project: Project, every_domain: tuple[str, ...]) -> Body | None:
    """Render the DNS records of the project's domains, in zones of the shared project."""
    if not project.domains:
        return None
    found = zones(every_domain)
    records: Body = {}
    for environment, domain in project.domains:
        zone = zone_of(domain, found).name
        record = (
            f"google_certificate_manager_dns_authorization.{environment}.dns_resource_record[0]"
        )
        records[environment] = {
            "project": project.shared,
            "managed_zone": zone,
            "name": f"{domain}.",
            "type": "A",
            "ttl": 300,
            "rrdatas": ["${google_compute_global_address.edge.address}"],
        }
        records[f"{environment}_proof"] = {
            "//": "Proves ownership of the domain to the certificate authority.",
            "project": project.shared,
            "managed_zone": zone,
            "name": f"${{{record}.name}}",
            "type": f"${{{record}.type}}",
            "ttl": 300,
            "rrdatas": [f"${{{record}.data}}"],
        }
    return {"resource": {"google_dns_record_set": records}}
