"""The branches of merged pull requests, from the forge.

The message of a squash or a fast-forward names no branch, and that of a merge can be edited. So the
forge is asked for the pull request of each commit that main got since the last version, where the
message does not answer it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from lapwing.release.commits import Commit, merged_branches
from lapwing.release.forges import Forge
from lapwing.release.policy import History, Rules

MAX_COMMITS = 100
"""The newest commits that the forge is asked about; a first release may have thousands."""
JOBS = 8


async def with_pull_requests(history: History, rules: Rules, forge: Forge) -> History:
    """Return the history with the branches of its pull requests. Raises LapwingError.

    Only the policy `feature-merge` needs them, and only for a version that is not tagged yet or is
    completed, because its notes list them.
    """
    if rules.policy != "feature-merge" or history.within is not None:
        return history
    slots = asyncio.Semaphore(JOBS)

    async def ask(commit: Commit) -> tuple[str, list[str]]:
        async with slots:
            return commit.sha, await forge.merged_branches(commit.sha)

    mainline = [c for c in history.commits if c.sha in history.mainline]
    asked = [c for c in mainline if not merged_branches(c)][:MAX_COMMITS]
    found = dict(await asyncio.gather(*map(ask, asked)))
    commits = (replace(c, branches=tuple(found.get(c.sha, ()))) for c in history.commits)
    return replace(history, commits=tuple(commits))
