"""`lapwing open`: forward https://localhost:8585 to a stack in a cluster, until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from lapwing.cli import complete
from lapwing.cli.context import Context
from lapwing.cli.options import context_option, environment_option
from lapwing.errors import StateError, UsageError

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
    help="The local port; by default LAPWING_PORT, or 8585.",
)
@click.option(
    "--service",
    metavar="NAME",
    shell_complete=complete.services,
    help="Forward to the pods of one service, without the edge.",
)
@click.option("--browser", is_flag=True, help="Open a browser if there is a terminal.")
@context_option
@click.pass_obj
def command(
    context: Context,
    environment: str,
    port: int | None,
    service: str | None,
    browser: bool,
    cluster: str | None,
) -> None:
    """Forward a local port to a stack in a cluster, until Ctrl-C.

    The connection goes through the Kubernetes API, so the cluster needs no public address. A stack
    on a machine already has a URL, which is printed.
    """
    place = context.cluster(environment, cluster)
    if place is None:
        found = context.target(environment).status().status
        if not any(s.active for s in found.services):
            raise StateError(
                f"{found.stack}/{environment} is not running.",
                hint=f"Run `lapwing up -e {environment}` to start it.",
            )
        url = found.url
        context.printer.data(url)
        _browse(context, url, browser)
        return
    with place.connect() as api:
        wanted = (service, port or context.settings.port)
        asyncio.run(_forward(context, api, place.scope, wanted, browser))


async def _forward(
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
    context.prepare_home()
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
        f"Forwarding to {place.part} of {scope.stack}/{scope.environment} (port {place.port}"
        f"{inside}, {len(found)} pod{'s' if len(found) != 1 else ''}) on {api.access.context} "
        f"until Ctrl-C. For a browser to trust it, add {paths.authority} to its authorities."
    )
    _browse(context, url, browser)
    try:
        await asyncio.gather(*(server.serve_forever() for server in servers))
    finally:
        for server in servers:
            server.close()


def _find(api: ApiClient, scope: Scope, service: str | None) -> list[Pod]:
    """Return the pods to forward to. Raises StateError or UsageError."""
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
    hint = f"Run `lapwing status -e {scope.environment}` to see what is running."
    if there and not ready:
        raise StateError(f"No pod of {part} is ready.", hint=hint)
    if service is None:
        raise UsageError(
            f"{scope.stack} has no edge in the cluster: no service has a `route`.",
            hint=f"{hint} Add `--service NAME` to forward to a service.",
        )
    what = "has no pod" if not there else "has no HTTP port"
    raise StateError(f"{part} {what} in {scope.namespace}.", hint=hint)


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
        context.printer.say("No browser is opened because there is no terminal.")
        return
    import webbrowser

    webbrowser.open(url)
