"""How often something is tried again, and after which delays.

The loops themselves stay where they are, because each does something different between two
attempts: it obeys `Retry-After`, looks whether the request was carried out, or fetches again. The
decision record "Locks and retries" says why this is not the `tenacity` package.
"""

from __future__ import annotations

from typing import NamedTuple


class RetryPolicy(NamedTuple):
    """How often to try, and the seconds before the second attempt.

    Each delay is twice the one before, up to `max_delay`.
    """

    attempts: int = 6
    first_delay: float = 0.25
    max_delay: float = 10.0

    def delay(self, failed: int) -> float:
        """Return the seconds to wait after `failed` attempts, with jitter."""
        import random

        doublings = min(failed - 1, 32)  # A process may be restarted without end.
        whole: float = min(self.first_delay * 2**doublings, self.max_delay)
        return whole * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
