"""The analysis after the switch: reads Envoy's counters until each new release passes or fails.

A release that received too few requests to be judged gets requests from the agent: to its health
check, and to its route. `analysis` has the judgement.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from lapwing.agent import analysis, checks, generations, logs
from lapwing.agent.context import Context
from lapwing.agent.launch import Launcher
from lapwing.agent.proxy.model import Counters
from lapwing.agent.state import EnvironmentState, Generation, RolloutRecord
from lapwing.errors import ReplicaError

INTERVAL_S = 0.25
"""Time between two readings of the counters."""
SYNTHETIC_CHECKS = 3
"""Health checks of each replica when a window had too few requests to analyse."""


class AnalysisRun:
    """Analyses the releases of one environment. `note` adds a line to the events of a rollout."""

    def __init__(
        self,
        context: Context,
        state: EnvironmentState,
        launcher: Launcher,
        note: Callable[[RolloutRecord, str], None],
    ) -> None:
        self._context = context
        self._state = state
        self._launcher = launcher
        self._note = note

    async def run(self, record: RolloutRecord, candidates: Sequence[Generation]) -> None:
        """Wait until each candidate has passed its analysis. Raises ReplicaError if one fails."""
        pending = {
            self._state.cluster_name(g): g
            for g in candidates
            if g.spec.rollout.analysis is not None and g.spec.kind in ("web", "static")
        }
        before = {name: Counters(name) for name in pending}
        before |= await self._context.publisher.counters(pending)
        began = time.monotonic()
        while pending:
            await asyncio.sleep(INTERVAL_S)
            now = await self._context.publisher.counters(pending)
            for name, generation in list(pending.items()):
                limits = generation.spec.rollout.analysis
                assert limits is not None
                found = analysis.judge(limits, before[name], now.get(name, before[name]))
                if found.failed is not None:
                    raise ReplicaError(f"{generation.service}: {found.failed}.")
                if time.monotonic() - began >= limits.window:
                    del pending[name]
                    summary = f"{generation.service}: {found.summary(limits.min_requests)}"
                    if found.requests < limits.min_requests:
                        count = await self._check_synthetically(generation)
                        summary += f"; {count} synthetic requests succeeded"
                        summary += await self._check_route(record, generation)
                        known = [record.reason] if record.reason else []
                        record.reason = "; ".join([*known, summary])
                    self._note(record, summary)

    async def _check_synthetically(self, generation: Generation) -> int:
        """Check each replica with requests of the agent; returns how many were sent.

        Raises ReplicaError if one fails.
        """
        spec = generation.spec
        for replica in generation.replicas:
            for _ in range(SYNTHETIC_CHECKS):
                reason = await checks.check_health(replica.port, spec)
                if reason is not None:
                    raise ReplicaError(
                        f"{generation.service} had too few requests to analyse, and a synthetic "
                        f"request failed: {reason}."
                    )
        each = 1 if spec.health.path is not None else checks.CONNECTIONS
        return len(generation.replicas) * SYNTHETIC_CHECKS * each

    async def _check_route(self, record: RolloutRecord, generation: Generation) -> str:
        """Check that no replica responds to its route with 5xx unless the replaced release did.

        Returns what to add to the summary. A service that has smoke tests is not checked:
        they say which requests have to succeed. Raises ReplicaError.
        """
        spec = generation.spec
        limits = spec.rollout.analysis
        checked = spec.kind == "web" and not spec.rollout.smoke
        if not checked or limits is None or limits.max_error_rate is None:
            return ""
        found = [(r, await checks.check_route(r.port, spec)) for r in generation.replicas]
        failed = next(((replica, reason) for replica, reason in found if reason), None)
        if failed is None:
            return ""
        replica, reason = failed
        number = record.previous.get(generation.service)
        before = self._state.numbered(number) if number is not None else None
        if before is not None and (
            not generations.is_usable(before)
            or await checks.check_route(before.replicas[0].port, before.spec)
        ):
            return f"; {reason}, and the release before it failed, too"
        raise ReplicaError(
            f"{generation.service} had too few requests to analyse, and {reason}; the release "
            "before it had no such error.",
            detail=logs.tail(self._launcher.log_of(generation, replica)),
            hint="If this response is intended, add a smoke test for what has to work: `rollout: "
            "{smoke: [{get: PATH}]}`.",
        )
