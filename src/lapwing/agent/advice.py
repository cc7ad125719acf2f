"""Advice on running services: files that a deployment loses, ports that other machines reach.

It is in the status while it applies, and a deployment prints it.
"""

from __future__ import annotations

import asyncio

from lapwing.agent import logs, ports, volumes
from lapwing.agent.context import Context
from lapwing.agent.launch import Launcher
from lapwing.agent.state import Generation
from lapwing.agent.store import Store


class Advice:
    """Finds what to change in the services of one environment."""

    def __init__(self, context: Context, store: Store, launcher: Launcher) -> None:
        self._context = context
        self._store = store
        self._launcher = launcher

    async def report_written(self, generation: Generation, commit: str | None = None) -> None:
        """Report files that a generation wrote into its release, or was not permitted to write.

        At a deployment (`commit`) all of them, later only new ones.
        """
        if generation.spec.kind != "static":
            found = await asyncio.to_thread(self._find_written, generation)
            self._store.advise(generation.number, "files", found, commit)

    async def report_public_port(self, generation: Generation, commit: str | None = None) -> None:
        """Report that a generation's replicas listen on addresses that other machines reach.

        At a deployment (`commit`) always, later only if it is new.
        """
        if generation.spec.kind == "web" and generation.replicas:
            service, port = generation.service, generation.replicas[0].port
            address = await asyncio.to_thread(ports.public_listener, port)
            text = (
                f"{service} listens on {address}, port {port}, so other machines can send it "
                "requests without Envoy. Bind it to $HOST, which is 127.0.0.1."
            )
            found = [text] if address is not None else []
            self._store.advise(generation.number, "port", found, commit)

    def _find_written(self, generation: Generation) -> list[str]:
        service, used = generation.service, generation.spec.volumes
        release = self._context.releases.folder(
            self._store.state.stack, service, generation.spec.release
        )
        texts = []
        if names := volumes.written(release):
            texts.append(
                f"{service} wrote {', '.join(names)} into its release; these files are lost at the "
                f"next deployment. {volumes.advice(service, used, release / 'app', names)}"
            )
        tails = [logs.tail(self._launcher.log_of(generation, r), 200) for r in generation.replicas]
        texts += [
            f"{service} was not permitted to write a file ({line}). Its release is read-only: add "
            "what it writes there to its `volumes`, such as `uploads: ./uploads` or "
            "`data: ./db.sqlite3`."
            for line in dict.fromkeys(map(volumes.refused, tails))
            if line is not None
        ]
        return texts
