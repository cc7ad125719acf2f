"""The name of the endpoint group between a load balancer of Google Cloud and the edge in a cluster.

The cluster makes the group (an annotation of the edge's Service asks for it) and Terraform finds it
by its name. Environments may share a project, so the name says which one's edge it is. Pure.

Google Cloud: "Standalone network endpoint groups": a name is at most 63 characters.
"""

from __future__ import annotations

import hashlib

LONGEST = 63


def group(stack: str, environment: str) -> str:
    """The name: `<stack>-<environment>-edge`; where that is too long, cut, with a digest."""
    name = f"{stack}-{environment}-edge"
    if len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: LONGEST - 9].rstrip('-')}-{digest}"
