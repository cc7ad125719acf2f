"""`migrate` on a machine: the job `<service>-migrate`, which runs in the release of its service.

It is added to the stack when an environment on a machine is loaded, and is then handled like any
other job. On Kubernetes it is rendered from the service.
"""

from __future__ import annotations

from lapwing.stack.model import Replicas, Service, Stack
from lapwing.stack.rollout import Health, Rollout


def job_of(service: str) -> str:
    """Return the name of the job that migrates the database of a service."""
    return f"{service}-migrate"


def add_jobs(stack: Stack) -> Stack:
    """Return the stack with a job for each service with `migrate`."""
    jobs = {
        job_of(name): _job(service)
        for name, service in stack.services.items()
        if service.migrate is not None
    }
    return stack.model_copy(update={"services": jobs | stack.services}) if jobs else stack


def offline(stack: Stack) -> dict[str, str]:
    """Return the services with an offline migration, by the name of its job."""
    return {
        job_of(name): name
        for name, service in stack.services.items()
        if service.migrate is not None and service.migrate.mode == "offline"
    }


def database_of(stack: Stack, service: Service) -> str:
    """Return the resource that a service migrates: the first one it needs that is no cache."""
    return next((n for n in service.needs if stack.resources[n].kind != "redis"), service.needs[0])


def _job(service: Service) -> Service:
    assert service.migrate is not None
    return service.model_copy(
        update={
            "kind": "job",
            "command": service.migrate.run,
            "migrate": None,
            "route": None,
            "health": Health(),
            "replicas": Replicas(),
            "rollout": Rollout(),
            "access": None,
            "headers": {},
            "timeout": None,
        }
    )
