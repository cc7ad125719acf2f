"""The network of a project: a private subnet, a firewall that denies by default, one NAT.

Addresses are the same in every project (networks are not joined): nodes 10.10.0.0/20, pods
10.20.0.0/14 and services 10.30.0.0/20, the control plane 172.16.0.0/28. Autopilot gives each node a
/26 of pod addresses, so this suffices for about 4,000 nodes.
"""

from __future__ import annotations

from lapwing.render.terraform.cloud import Project
from lapwing.render.terraform.foundation import PROJECT, Body

NODES, PODS, SERVICES = "10.10.0.0/20", "10.20.0.0/14", "10.30.0.0/20"
CONTROL_PLANE = "172.16.0.0/28"
EDGE_PORT = 8080
"""The port of the edge (Envoy) in the cluster that the load balancer connects to."""
_LOAD_BALANCER = ["35.191.0.0/16", "130.211.0.0/22"]
"""The addresses of Google's load balancers and health checks
(https://cloud.google.com/load-balancing/docs/firewall-rules)."""
NODE_TAG = "lapwing-nodes"


def network(project: Project) -> Body:
    """Render the network, its private subnet, and the NAT."""
    main = "${google_compute_network.main.id}"
    here = {"project": PROJECT, "region": project.region}
    return {
        "resource": {
            "google_compute_network": {
                "main": {
                    "project": here["project"],
                    "name": "main",
                    "auto_create_subnetworks": False,
                    "routing_mode": "REGIONAL",
                    "depends_on": ["google_project_service.compute"],
                }
            },
            "google_compute_subnetwork": {
                "nodes": {
                    **here,
                    "name": "nodes",
                    "network": main,
                    "ip_cidr_range": NODES,
                    "private_ip_google_access": True,
                    "secondary_ip_range": [
                        {"range_name": "pods", "ip_cidr_range": PODS},
                        {"range_name": "services", "ip_cidr_range": SERVICES},
                    ],
                    "log_config": {
                        "aggregation_interval": "INTERVAL_10_MIN",
                        "flow_sampling": 0.1,
                        "metadata": "INCLUDE_ALL_METADATA",
                    },
                }
            },
            "google_compute_router": {"main": {**here, "name": "main", "network": main}},
            "google_compute_address": {
                "nat": {
                    "//": "The source address of all egress, for allow lists of others.",
                    **here,
                    "name": "nat",
                    "address_type": "EXTERNAL",
                }
            },
            "google_compute_router_nat": {
                "main": {
                    "//": "One NAT for all nodes and environments of the project.",
                    **here,
                    "name": "main",
                    "router": "${google_compute_router.main.name}",
                    "nat_ip_allocate_option": "MANUAL_ONLY",
                    "nat_ips": ["${google_compute_address.nat.self_link}"],
                    "source_subnetwork_ip_ranges_to_nat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
                    "enable_dynamic_port_allocation": True,
                    "log_config": {"enable": True, "filter": "ERRORS_ONLY"},
                }
            },
        },
        "output": {
            "egress_address": {
                "description": "The source address of requests from the cluster.",
                "value": "${google_compute_address.nat.address}",
            }
        },
    }


def firewall(project: Project) -> Body:
    """Render a firewall that denies ingress and egress, but for what is needed.

    GKE adds its own rules between the control plane and the nodes; NetworkPolicies narrow the
    connections inside the cluster.
    """
    allowed: Body = {
        "allow-out-inside": {
            "//": "Between nodes, pods, services and private endpoints.",
            **_rule("EGRESS", 1000),
            "destination_ranges": [NODES, PODS, SERVICES, CONTROL_PLANE],
            "allow": [{"protocol": "all"}],
        },
        "allow-out-https": {
            "//": "The registry, Google's services, the forge: HTTPS, through the NAT or Private "
            "Google Access.",
            **_rule("EGRESS", 1000),
            "destination_ranges": ["0.0.0.0/0"],
            "allow": [{"protocol": "tcp", "ports": ["443"]}],
        },
        "allow-in-inside": {
            "//": "Between pods and nodes; NetworkPolicies narrow this.",
            **_rule("INGRESS", 1000),
            "source_ranges": [NODES, PODS],
            "allow": [{"protocol": "tcp"}, {"protocol": "udp"}, {"protocol": "icmp"}],
        },
    }
    if project.domains:
        allowed["allow-in-load-balancer"] = {
            "//": "From the load balancer and its health checks to the port of the edge.",
            **_rule("INGRESS", 1000),
            "source_ranges": _LOAD_BALANCER,
            "allow": [{"protocol": "tcp", "ports": [str(EDGE_PORT)]}],
            "target_tags": [NODE_TAG],
        }
    denied = {
        "deny-in": {
            **_rule("INGRESS", 65534),
            "source_ranges": ["0.0.0.0/0"],
            "deny": [{"protocol": "all"}],
            "log_config": {"metadata": "INCLUDE_ALL_METADATA"},
        },
        "deny-out": {
            **_rule("EGRESS", 65534),
            "destination_ranges": ["0.0.0.0/0"],
            "deny": [{"protocol": "all"}],
            "log_config": {"metadata": "INCLUDE_ALL_METADATA"},
        },
    }
    rules = {**denied, **allowed}
    return {
        "resource": {
            "google_compute_firewall": {
                name.replace("-", "_"): {**_comment(rule), "name": name, **_rest(rule)}
                for name, rule in rules.items()
            }
        }
    }


def _rule(direction: str, priority: int) -> Body:
    return {
        "project": PROJECT,
        "network": "${google_compute_network.main.name}",
        "direction": direction,
        "priority": priority,
    }


def _comment(rule: Body) -> Body:
    return {"//": rule["//"]} if "//" in rule else {}


def _rest(rule: Body) -> Body:
    return {key: value for key, value in rule.items() if key != "//"}
