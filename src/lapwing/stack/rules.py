"""The rules about more than one field of the stack file.

A rule is a generator over a stack (with one environment's overlay applied) that yields violations;
its docstring states the rule on the reference page. To add a rule, write one function and add it
to `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lapwing.stack import (
    branch_rules,
    environment_rules,
    ingress_rules,
    managed_rules,
    pod_rules,
    release_rules,
    service_rules,
    variable_rules,
)
from lapwing.stack.environment import Environment
from lapwing.stack.model import Stack
from lapwing.stack.source import Violation

Rule = Callable[[Stack, Environment], Iterator[Violation]]

RULES: tuple[Rule, ...] = (
    service_rules.check_needs,
    service_rules.check_job_order,
    service_rules.check_routes,
    service_rules.check_kinds,
    service_rules.check_buffering,
    service_rules.check_sources,
    service_rules.check_machine_sources,
    service_rules.check_cluster_only_keys,
    service_rules.check_volumes,
    service_rules.check_replica_range,
    service_rules.check_smoke_tests,
    service_rules.check_limits,
    service_rules.check_migrations,
    variable_rules.check_variables,
    variable_rules.check_resource_names,
    variable_rules.check_command_secrets,
    variable_rules.check_references,
    ingress_rules.check_domains,
    ingress_rules.check_redirects,
    ingress_rules.check_preview_names,
    ingress_rules.check_tls,
    ingress_rules.check_access,
    ingress_rules.check_headers,
    ingress_rules.check_maintenance,
    environment_rules.check_host,
    environment_rules.check_desired,
    environment_rules.check_backup,
    environment_rules.check_backup_name,
    environment_rules.check_logs,
    environment_rules.check_runtime,
    environment_rules.check_environment_names,
    branch_rules.check_branches,
    environment_rules.check_cloud,
    environment_rules.check_machine_type,
    environment_rules.check_projects,
    environment_rules.check_delivery,
    environment_rules.check_repository,
    environment_rules.check_environment_registry,
    pod_rules.check_pods,
    pod_rules.check_registry_mirror,
    *managed_rules.RULES,
    environment_rules.check_database_images,
    environment_rules.check_database_names,
    environment_rules.check_accepted_vulnerabilities,
    environment_rules.check_signing,
    *release_rules.RULES,
)
