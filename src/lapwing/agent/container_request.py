"""Names, labels and creation requests of containers.

The name of a container is derived from its mark, so a replica never has two. Labels name its owner,
so that a container without a record is found and removed.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from lapwing.agent.processes import ContainerOptions, Launch
from lapwing.settings import Settings

HOME_LABEL = "dev.lapwing.home"
OWNER_LABEL = "dev.lapwing.owner"
DEFAULT_SCRATCH_BYTES = 256 * 1024 * 1024
"""The size of /tmp in a container without `scratch`."""
LOG_OPTIONS = {"max-size": "10m", "max-file": "2"}
_SHARES_PER_CPU = 1024


def image_repository(settings: Settings, stack: str, service: str) -> str:
    """Return the repository of the images that are built for a service of this home."""
    return f"lapwing/{_home(settings)}/{stack}/{service}"


def network_name(settings: Settings, stack: str, environment: str) -> str:
    """Return the name of the network in which containers of an environment reach its resources."""
    return f"lapwing-{_home(settings)}-{stack}-{environment}"


def _home(settings: Settings) -> str:
    return hashlib.sha256(str(settings.home).encode()).hexdigest()[:8]


def name_of(mark: str) -> str:
    """Return the name of a container: that of its owner, and a digest with the home."""
    owner = re.sub("[^A-Za-z0-9_.-]", "-", mark.partition("|")[2])
    return f"lapwing-{owner}-{hashlib.sha256(mark.encode()).hexdigest()[:8]}"


def creation(launch: Launch, options: ContainerOptions, mark: str) -> dict[str, Any]:
    """Return the request that creates a container.

    Memory is limited; CPU is a share and no limit, as on Kubernetes, because a limit slows down a
    container beside idle cores.
    """
    home, _, owner = mark.partition("|")
    tmp = f"rw,exec,nosuid,nodev,mode=1777,size={options.scratch or DEFAULT_SCRATCH_BYTES}"
    mounts = [(path, place, False) for path, place in options.volumes.items()]
    mounts += [(path, place, True) for path, place in options.files.items()]
    host: dict[str, Any] = {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Tmpfs": dict.fromkeys(options.temporary, tmp),
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": LOG_OPTIONS},
        "Mounts": [
            {"Type": "bind", "Source": str(place), "Target": path, "ReadOnly": read_only}
            for path, place, read_only in mounts
        ],
    }
    if options.memory is not None:
        host |= {"Memory": options.memory, "MemorySwap": options.memory}
    if options.cpu is not None:
        host["CpuShares"] = max(2, round(options.cpu * _SHARES_PER_CPU))
    body: dict[str, Any] = {
        "Image": options.image,
        "User": f"{options.user}:{options.user}",
        "Env": [f"{name}={value}" for name, value in launch.environ.items()],
        "Labels": {HOME_LABEL: home, OWNER_LABEL: owner},
        "HostConfig": host,
    }
    if options.keep_entrypoint:
        body["Cmd"] = list(launch.arguments)
    elif launch.arguments:
        body |= {"Entrypoint": list(launch.arguments), "Cmd": []}
    if options.host_network:
        host["NetworkMode"] = "host"
        return body
    if options.network is not None:
        host["NetworkMode"] = options.network
        aliases = [] if options.alias is None else [options.alias]
        body["NetworkingConfig"] = {"EndpointsConfig": {options.network: {"Aliases": aliases}}}
    if options.port is not None:
        port = f"{options.port}/tcp"
        body["ExposedPorts"] = {port: {}}
        host["PortBindings"] = {port: [{"HostIp": "127.0.0.1", "HostPort": str(options.published)}]}
    return body
