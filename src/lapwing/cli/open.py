"""`lapwing open`: a stack on a cluster at https://localhost:8585 of this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from lapwing.cli import cluster as on_cluster
from lapwing.cli import target
from lapwing.cli.context import Context, complete_services, environment_option
from lapwing.errors import UsageError

if TYPE_CHECKING:
    from lapwing.kubernetes.applyset import Scope
    from lapwing.kubernetes.client import ApiClient
    from lapwing.kubernetes.pods import Pod
    from lapwing.kubernetes.port_forward import ForwardTarget
    from lapwing.kubernetes.tunnel import TunnelDialer


@click.command("open")
@environment_option
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The port here; LAPWING_PORT, or 8585, if it is not said.",
)
@click.option(
    "--service",
    metavar="NAME",
    shell_complete=complete_services,
    help="Lead to the pods of one service, past the edge.",
)
@click.option("--browser", is_flag=True, help="Open a browser, where there is a terminal.")
@on_cluster.context_option
@click.pass_obj
def command(
    context: Context,
    environment: str,
    port: int | None,
    service: str | None,
    browser: bool,
    cluster: str | None,
) -> None:
    """Lead https://localhost:8585 to a stack on a cluster, until Ctrl-C.

    Goes through the Kubernetes API, so it needs no address of the cluster's own. On a machine the
    stack has its address already, and it is printed.
    """
    place = on_cluster.scope_of(context, environment)
    if place is None:
        _of_machine(context, environment, browser)
        return
    with on_cluster.connect(context, cluster, place[0]) as api:
        asyncio.run(
            _lead(context, api, place[0], (service, port or context.settings.port), browser)
        )


def _of_machine(context: Context, environment: str, browser: bool) -> None:
    where = target.where(context, environment)
    found = target.present(context, where)
    if found is None:
        raise target.never_deployed(where)
    context.printer.data(found.url)
    _browse(context, found.url, browser)


async def _lead(
    context: Context, api: ApiClient, scope: Scope, wanted: tuple[str | None, int], browser: bool
) -> None:
    from lapwing.agent.proxy import bootstrap, certificates
    from lapwing.kubernetes import port_forward
    from lapwing.kubernetes.tunnel import TunnelDialer

    service, port = wanted
    dialer = TunnelDialer(api)
    found = await asyncio.to_thread(_find, api, scope, service)
    place = await _place(dialer, scope, found)
    settings, printer = context.settings, context.printer
    certificates.ensure(settings.certificates, ())
    paths = certificates.Paths(settings.certificates)
    forwarder = port_forward.PortForwarder(
        dialer, port_forward.PodSelector(api, place), place, printer.say
    )
    servers = await port_forward.listen(
        forwarder, bootstrap.addresses_for(settings.bind), port, paths.server
    )
    url = f"https://localhost:{port}"
    printer.data(url)
    printer.out.flush()
    inside = " with TLS" if place.tls else ""
    printer.say(
        f"Leads to {place.part} of {scope.stack}/{scope.environment} (port {place.port}{inside}, "
        f"{len(found)} pod{'s' if len(found) != 1 else ''}) on {api.access.context}. Ctrl-C ends "
        f"it. To let a browser trust it, add {paths.authority} to its authorities."
    )
    _browse(context, url, browser)
    try:
        await asyncio.gather(*(server.serve_forever() for server in servers))
    finally:
        for server in servers:
            server.close()


def _find(api: ApiClient, scope: Scope, service: str | None) -> list[Pod]:
    """The pods to lead to. Raises UsageError if there are none."""
    from lapwing.kubernetes import pods, port_forward

    part = service or pods.EDGE
    there = [i for i in pods.list_pods(api, scope) if i.service == part]
    ready = port_forward.candidates(there, part)
    if (
        ready
        and port_forward.port_of(ready[0]) is not None
        and ready[0].component not in pods.RESOURCES
    ):
        return ready
    hint = f"`lapwing status -e {scope.environment}` tells what runs."
    if there and not ready:
        raise UsageError(f"No pod of {part} is ready.", hint=hint)
    if service is None:
        raise UsageError(
            f"Nothing of {scope.stack} answers requests on the cluster.",
            hint=f"{hint} A service with a `route` has an edge; `--service NAME` goes past it.",
        )
    what = "has no pod" if not there else "answers no requests by HTTP"
    raise UsageError(f"{part} {what} in {scope.namespace}.", hint=hint)


async def _place(dialer: TunnelDialer, scope: Scope, found: list[Pod]) -> ForwardTarget:
    from lapwing.kubernetes import port_forward

    pod = found[0]
    port = port_forward.port_of(pod)
    assert port is not None
    tls = await port_forward.speaks_tls(dialer, found, port)
    return port_forward.ForwardTarget(scope, pod.service, port, tls)


def _browse(context: Context, url: str, browser: bool) -> None:
    if not browser:
        return
    if not sys.stdout.isatty():
        context.printer.say("There is no terminal here, so no browser is opened.")
        return
    import webbrowser

    webbrowser.open(url)
