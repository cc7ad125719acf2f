"""Redis on a real node, with a volume that is a folder of the node."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lapwing.plan import server_images
from tests import database_images
from tests.cluster import node_images, node_volumes
from tests.cluster.node_stack import NodeStack

CACHE = "{{kind: redis, storage: {storage}, resources: {{cpu: 50m, memory: 64Mi}}}}"
POD = "shop-cache-0"


def prepare(stack: NodeStack, folder: Path) -> None:
    """Push the image of Redis, and add a volume."""
    image = server_images.reference("redis", None, None)
    node_images.push_database(stack.registry, database_images.redis(folder), image)
    node_volumes.add(stack.node, folder.name)


def redis(stack: NodeStack, *command: str, pod: str = POD) -> str:
    """Send a command to the Redis of a stack, with its password, when its pod is ready."""
    password = stack.secret(pod.rpartition("-")[0], "password")
    call = ["redis-cli", "-h", stack.address_of(pod), *command]
    environ = {**stack.environ, "REDISCLI_AUTH": password}
    done = subprocess.run(call, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.strip()
