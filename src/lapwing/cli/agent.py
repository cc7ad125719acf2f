"""`lapwing agent`: start or stop the agent, or let the system start it after a reboot."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lapwing.cli.context import Context
from lapwing.cli.options import environment_option, output_option
from lapwing.observed import agent

UNIT = """\
[Unit]
Description=Lapwing agent
After=network.target docker.service podman.socket

[Service]
Type=simple
{environment}
ExecStart={python} -m lapwing.agent.daemon
Restart=on-failure
RestartSec=1
# Replicas, databases and Envoy outlive the agent on purpose, also if one of them is out of memory.
KillMode=process
OOMPolicy=continue
# The messages of the agent and, with `logs: journald`, of all services.
LogRateLimitIntervalSec=0
# The agent creates a control group for each replica.
Delegate=yes

[Install]
WantedBy={target}
"""


@click.group("agent")
def command() -> None:
    """Start, stop or install the agent."""


@command.command("start")
@click.pass_obj
def start(context: Context) -> None:
    """Start the agent if it is not running; it adopts running processes."""
    from lapwing.targets import local_agent

    record = local_agent.ensure(context.settings, context.printer.progress)
    context.printer.say(f"The agent is running (process {record.pid}).")


@command.command("stop")
@click.pass_obj
def stop(context: Context) -> None:
    """Stop the agent; replicas keep serving, but are not restarted after a crash.

    Waits first for processes that are being stopped.
    """
    from lapwing.targets import local_agent

    if agent.is_running(context.settings.agent):
        local_agent.finish_stops(context.settings, context.printer.progress)
    stopped = local_agent.end(context.settings)
    context.printer.say("The agent is stopped." if stopped else "The agent was not running.")


@command.command("status")
@output_option
@click.pass_obj
def status(context: Context) -> int:
    """Show whether the agent is running."""
    import msgspec

    record = agent.read(context.settings.agent)
    alive = agent.is_running(context.settings.agent)
    if context.for_programs:
        facts = msgspec.to_builtins(record) if record and alive else {}
        context.printer.json({"running": alive, **facts})
    elif alive and record is not None:
        context.printer.data(f"running, process {record.pid}, port {record.port}")
    else:
        context.printer.data("not running")
    return 0 if alive else 1


@command.command("pull")
@environment_option
@click.option("--stop", "stops", is_flag=True, help="Stop pulling it; what runs continues.")
@click.pass_obj
def pull(context: Context, environment: str, stops: bool) -> None:
    """Let the agent of this machine pull an environment from its `desired` repository.

    Run it again after a change of `desired` or its `signers`, or to accept a history that was
    rewritten. With `host`, it runs on the server.
    """
    import msgspec

    from lapwing.errors import StateError
    from lapwing.observed import pull as observed
    from lapwing.targets import local_agent, pull_source

    ref = context.ref(environment)
    if stops:
        known = observed.source(context.settings, ref.stack, environment)
        if known is None:
            raise StateError(f"This machine does not pull {ref}.", hint="Nothing was changed.")
        paused = msgspec.structs.replace(known, paused=True)
        observed.set_source(context.settings, ref.stack, environment, paused)
        context.printer.say(
            f"{ref} is no longer pulled. Run `lapwing agent pull -e {environment}` to resume."
        )
        return
    source = pull_source.read(context.load(environment, folders=False))
    context.prepare_home()
    observed.set_source(context.settings, ref.stack, environment, source)
    local_agent.ensure(context.settings, context.printer.progress)
    context.printer.say(
        f"The agent pulls {ref} from {source.url}. Run `lapwing status -e {environment}` to see "
        "the result."
    )


@command.command("install")
@click.option("--print", "only_print", is_flag=True, help="Print the unit; change nothing.")
@click.pass_obj
def install(context: Context, only_print: bool) -> None:
    """Write a systemd unit that starts the agent after a reboot."""
    import os

    settings = context.settings
    system = os.geteuid() == 0
    text = UNIT.format(
        environment="\n".join(
            f"Environment={_quote(f'{n}={v}')}" for n, v in settings.listener_environ().items() if v
        ),
        python=_quote(sys.executable).replace("$", "$$"),
        target="multi-user.target" if system else "default.target",
    )
    if only_print:
        context.printer.data(text.rstrip())
        return
    folder = Path("/etc/systemd/system") if system else Path.home() / ".config/systemd/user"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lapwing.service").write_text(text)
    user = "" if system else "--user "
    context.printer.say(f"Wrote {folder / 'lapwing.service'}. Now run:")
    context.printer.data(f"systemctl {user}daemon-reload && systemctl {user}enable lapwing")
    if not system:
        context.printer.data("loginctl enable-linger")


def _quote(value: str) -> str:
    """Quote a value of a unit, in which `%` begins a specifier. Source: systemd.syntax(7)."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
