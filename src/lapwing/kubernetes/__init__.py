"""A Kubernetes cluster as a place to run an environment: its API, and what is decided from it.

    kubeconfig -> api -> apply (inventory) -> wait (health, trouble) -> status, actions, forward

Objects are plain mappings, as the API sends them and the renderer makes them: custom resources are
half of what we handle, so typed models would cover the other half only. `health`, `trouble`,
`inventory` and `phase` are pure and decide; the rest talks to the API (docs/decisions/0018).
"""
