"""A Kubernetes cluster as the target of an environment: an API client, and what is built on it.

    kubeconfig, credentials -> client -> apply (applyset, waves, prune) -> wait (health, problems)
                                      -> status, pods, rollouts, logs, port_forward, verify
                                      -> upgrade (offline migrations)

Objects are plain mappings, as the API sends them and the renderer builds them. `health`,
`problems`, `applyset` and `waves` decide without I/O; the rest talks to the API server.
docs/decisions/0018 says why the client is our own.
"""

from collections.abc import Callable

Report = Callable[[str], None]
"""Reports progress, one line for each call."""
