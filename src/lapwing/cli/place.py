"""Where an environment runs, as the verbs speak to it: a machine, a cluster that Argo CD looks
after, or a cluster that Lapwing applies itself.

Each verb asks `of` for the place and tells it what to do; what that means is the place's own. A
method prints what comes of it and returns the exit status, or raises LapwingError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import click

from lapwing.cli.context import Context

if TYPE_CHECKING:
    from lapwing.desired.history import Entry
    from lapwing.stack.load import LoadedStack


@dataclass(frozen=True, slots=True)
class Reach:
    """How to reach a cluster: the context that was named, whether to change one without asking that
    is not local, and whether to make it."""

    cluster: str | None = None
    yes: bool = False
    create: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for of a deployment."""

    services: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    hold: bool = False
    dry_run: bool = False
    allow_downtime: bool = False
    backup: str | None = None
    restore: str | None = None
    """Commands that make a backup, and put it back, before and in an upgrade with an outage."""
    url: bool = False
    """Whether to print the URL in the end, as `up` does."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What goes beside what runs: the data, or the whole local cluster."""

    volumes: bool = False
    cluster: bool = False


class Place(Protocol):
    """Where an environment runs."""

    def deploy(self, loaded: LoadedStack, wish: Wish) -> int:
        """Bring what the stack file says to run."""
        ...

    def promote(self) -> int:
        """Give a held deployment the traffic."""
        ...

    def abort(self) -> int:
        """Stop the deployment in flight; what served before goes on serving."""
        ...

    def rollback(self, services: tuple[str, ...], release: str | None) -> int:
        """Go back to what was there before."""
        ...

    def down(self, removal: Removal) -> int:
        """Stop everything."""
        ...

    def history(self, limit: int) -> list[Entry]:
        """The deployments, newest first."""
        ...


def of(context: Context, environment: str, reach: Reach = Reach()) -> Place:
    """The place of an environment, by what the stack file says of it; the rest is not looked at.

    Raises StackFileError if it cannot be read, UsageError if a machine is asked for a cluster's
    options.
    """
    from lapwing.stack.load import LOCAL, find, read_environment

    said = read_environment(find(context.directory), environment)
    if said.get("target") != "kubernetes":
        from lapwing.cli.machine import Machine

        if reach.create or reach.cluster is not None:
            option = "--create" if reach.create else "--context"
            raise click.UsageError(f"{option} is for a cluster; {environment} is on a machine.")
        return Machine(context, environment)
    if is_direct(said) or environment == LOCAL:
        from lapwing.cli.direct import OnCluster

        return OnCluster(context, environment, str(said.get("domain") or ""), reach)
    from lapwing.cli.delivery import ByArgo

    return ByArgo(context, environment, reach)


def is_direct(said: Mapping[str, Any]) -> bool:
    """Whether Lapwing itself applies an environment of a cluster."""
    stated = said.get("delivery")
    return stated == "direct" if stated else said.get("cloud") is None


def reach_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--context NAME` and `--yes`, as `cluster` and `yes`."""
    from lapwing.cli.cluster import context_option, yes_option

    return context_option(yes_option(function))
