"""Write docs/reference/cli.md from the commands themselves.

`python -m docs.generate.cli` writes the page; a test compares it with the committed one.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from lapwing.cli.main import VERBS, cli

PAGE = Path(__file__).parents[1] / "reference/cli.md"

HEAD = """# Command line

<!-- Generated from the commands by `make docs`. Do not edit. -->

Every command works on the stack of the current folder, or of the folder given with `-C`. Commands with `-e`
work on that environment, by default `local`. Results go to stdout, messages to stderr.
`--output json` prints the result as JSON; [the shapes](json.md) are documented.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | the operation failed, or a prerequisite is missing: for example a secret or a program |
| 2 | wrong usage, an invalid or uncommitted file, or a confirmation that was declined |
| 130 | interrupted |

| environment variable | meaning |
|---|---|
| `LAPWING_HOME` | folder with the state of this machine: an absolute path |
| `LAPWING_PORT` | port on which Envoy serves HTTPS (8585) |
| `LAPWING_BIND` | address on which it listens (`localhost`) |
| `LAPWING_HTTP_PORT` | port on which Envoy redirects plain HTTP to https and answers ACME challenges (none; 80 on a server). Read when Envoy starts |
| `LAPWING_METRICS_PORT` | port on 127.0.0.1 for metrics of the first process of Envoy; the second one uses the next port (none). Read when Envoy starts |
| `LAPWING_TRUSTED_PROXIES` | addresses and networks of proxies in front of Envoy. Their X-Forwarded headers are kept; those of other clients are replaced. Read when Envoy starts |
| `LAPWING_PROXY_PROTOCOL` | `on`: the `LAPWING_TRUSTED_PROXIES` state the address of the client by the [PROXY protocol](../how-to/machine.md#with-a-tcp-load-balancer-in-front), version 1 or 2; all other peers except this machine are refused. Default: `off`. Read when Envoy starts |
| `LAPWING_UNDERSCORE_HEADERS` | request headers with an underscore in their name: `reject` (default: status 400, over HTTP/2 a reset of the stream), `drop` or `allow`. Read when Envoy starts |
| `LAPWING_BODY_TIMEOUT` | seconds within which a request has to arrive, to every service of the machine; later, the response is 408. 0: no limit. Default: 600. Read when Envoy starts |
| `LAPWING_RESOURCE_<NAME>_URL` | URL of the server to use for a resource |
| `LAPWING_REGISTRY_<HOST>_TOKEN`, `..._USER` | login of a registry; the host in capitals, every other character than a letter or digit as `_`. Default user for registries of Google: `_json_key` for the key (JSON) of a service account, `_json_key_base64` for the same in base64, `oauth2accesstoken` for an access token |
| `LAPWING_SIGNING_KEY` | private key (PEM) that signs pushed images (`image build --push`, `up`, `deploy`, `ship`) and the chart of `release` |
| `LAPWING_DESIRED_TOKEN` | token for a desired-state repository over HTTPS |
| `LAPWING_DESIRED_SIGNING_KEY` | private SSH key that signs commits where `desired` has `require_signed` |
| `LAPWING_FORGE_TOKEN` | token of the forge for `lapwing release` (or `GITEA_TOKEN`, `GITHUB_TOKEN`) |
| `LAPWING_REGISTRY_TOKEN` | token of the registry that `lapwing release` pushes images to; default: the forge's token |
| `NO_COLOR` | no colours |

"""  # noqa: E501


def page() -> str:
    """Return the whole page."""
    context = click.Context(cli, info_name="lapwing")
    verbs = {name: cli.get_command(context, name) for name in VERBS}
    lines = ["| command | |", "|---|---|"]
    lines += [f"| [`{name}`](#lapwing-{name}) | {text} |" for name, text in VERBS.items()]
    for name, command in verbs.items():
        assert command is not None, name
        lines += ["", *_section(command, context, name, level=2)]
    return HEAD + "\n".join(lines) + "\n"


def _section(command: click.Command, parent: click.Context, name: str, level: int) -> Iterator[str]:
    """One command as a heading, its usage, its description and its options."""
    context = click.Context(command, info_name=name, parent=parent)
    yield f"{'#' * level} {context.command_path}"
    usage = " ".join(filter(None, command.collect_usage_pieces(context)))
    yield from ("", "```text", f"{context.command_path} {usage}", "```", "")
    yield from _paragraphs(command.help or "")
    rows = list(_options(command, context))
    if rows:
        yield from ("| option | |", "|---|---|", *rows)
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from ("", *_section(found, context, inner, level + 1))


def _paragraphs(text: str) -> Iterator[str]:
    r"""The paragraphs of a help text, each on one line; those after `\b` as they are."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            yield from ("```text", paragraph.removeprefix("\b\n"), "```")
        else:
            yield " ".join(paragraph.split())
        yield ""


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or "--help" in parameter.opts or "-C" in parameter.opts:
            continue
        names, text = record
        if text:
            cell = " ".join(text.split()).replace("<", "&lt;").replace("|", ", ")
            yield f"| `{names.replace('|', ', ')}` | {cell} |"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
