"""Client of the container engine of this machine: the Docker Engine API over its Unix socket.

Docker and Podman serve this API. It is HTTP, and the agent has httpx, so it needs no other library
(docs/decisions/0041-containers-through-httpx.md). Only engines on this machine are supported:
volumes are folders of it, ports are published on its loopback address, and a replica is identified
by the process of its container.

Source: Docker Engine API 1.41, https://docs.docker.com/reference/api/engine/version/v1.41/.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapwing.errors import EngineError, EngineUnreachableError, causes

if TYPE_CHECKING:
    import httpx

RESPONSE_TIMEOUT_S = 60.0
"""How long an engine may take for a request; creating a container may have to wait for a disk."""
READ_BYTES = 1024 * 1024
STDERR = 2
"""The number of the standard error stream in multiplexed output."""
_HEADER_BYTES = 8
NO_ENGINE_HINT = (
    "Install Docker (`apt-get install docker.io`) or Podman. A service with `build:` needs none "
    "with `runtime: process`, which is the default."
)


def find_socket(environ: Mapping[str, str]) -> Path:
    """Return the socket of the engine: DOCKER_HOST, else the first of the usual ones that exists.

    Raises EngineUnreachableError if there is none.
    """
    host = environ.get("DOCKER_HOST") or environ.get("CONTAINER_HOST")
    if host:
        if not host.startswith("unix://"):
            raise EngineUnreachableError(
                f"DOCKER_HOST is {host!r}: the engine has to be on this machine.",
                hint="Unset it, or set it to a socket such as unix:///var/run/docker.sock.",
            )
        return Path(host.removeprefix("unix://"))
    own = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    found = [
        Path("/var/run/docker.sock"),
        own / "docker.sock",
        Path("/run/podman/podman.sock"),
        own / "podman" / "podman.sock",
    ]
    for path in found:
        with contextlib.suppress(OSError):
            if path.is_socket():
                return path
    raise EngineUnreachableError(
        "No container engine was found: DOCKER_HOST is not set, and no socket exists at "
        f"{', '.join(map(str, found))}.",
        hint=f"{NO_ENGINE_HINT} If its socket has another path, set DOCKER_HOST, run `lapwing "
        "agent stop` and run this command again: the agent inherits its variables. For an agent "
        "that systemd starts, set DOCKER_HOST in the unit file.",
    )


def is_running(environ: Mapping[str, str]) -> bool:
    """Return whether an engine of this machine responds."""

    async def ask() -> bool:
        async with Engine(find_socket(environ)) as engine:
            return (await engine.platform())[0] == "linux"

    try:
        return asyncio.run(ask())
    except EngineError:
        return False


class Engine:
    """A container engine, reached through its socket. Use it in one event loop only."""

    def __init__(self, socket: Path) -> None:
        import httpx

        self.socket = socket
        transport = httpx.AsyncHTTPTransport(
            uds=str(socket), limits=httpx.Limits(max_connections=None)
        )
        self._client = httpx.AsyncClient(
            transport=transport, base_url="http://engine", timeout=RESPONSE_TIMEOUT_S
        )

    async def __aenter__(self) -> Engine:
        """Return the engine itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        await self._client.aclose()

    # Images

    async def platform(self) -> tuple[str, str]:
        """Return the operating system and the architecture of the engine: `linux`, `amd64`."""
        found = await self._json("GET", "/version")
        return str(found.get("Os", "")), str(found.get("Arch", ""))

    async def image(self, reference: str) -> dict[str, Any] | None:
        """Return an image that the engine has; None if it has none of that name or ID."""
        found: dict[str, Any] | None = await self._found("GET", f"/images/{reference}/json")
        return found

    async def pull(
        self, reference: str, login: Mapping[str, str] | None, report: Callable[[str], None]
    ) -> None:
        """Pull an image; `report` gets the progress. Raises EngineError if it cannot be pulled."""
        import base64

        auth = base64.urlsafe_b64encode(json.dumps(dict(login or {})).encode()).decode()
        sizes: dict[str, tuple[int, int]] = {}
        async with self._stream(
            "POST",
            "/images/create",
            params={"fromImage": reference},
            headers={"X-Registry-Auth": auth},
        ) as response:
            async for line in response.aiter_lines():
                entry = json.loads(line) if line.strip() else {}
                if "error" in entry:
                    raise EngineError(f"{reference} cannot be pulled: {entry['error']}.")
                detail = entry.get("progressDetail") or {}
                if entry.get("status") == "Downloading" and detail.get("total"):
                    sizes[entry.get("id", "")] = (detail["current"], detail["total"])
                    done, total = (
                        sum(column) / 1e6 for column in zip(*sizes.values(), strict=True)
                    )
                    report(f"pulling {reference}: {done:.0f} of {total:.0f} MB")

    async def load(self, archive: Path) -> None:
        """Load the images of an archive. Raises EngineError."""

        async def content() -> AsyncIterator[bytes]:
            with archive.open("rb") as file:
                while data := await asyncio.to_thread(file.read, READ_BYTES):
                    yield data

        async with self._stream("POST", "/images/load", content=content()) as response:
            async for line in response.aiter_lines():
                entry = json.loads(line) if line.strip() else {}
                if "error" in entry:
                    raise EngineError(f"The engine cannot load the image: {entry['error']}.")

    async def names(self, repository: str) -> list[str]:
        """Return the names of the images in a repository, with their tags."""
        filters = json.dumps({"reference": [repository]})
        found = await self._json("GET", "/images/json", params={"filters": filters})
        return [
            name
            for image in found
            for name in image.get("RepoTags") or []
            if name.startswith(f"{repository}:")
        ]

    async def untag(self, name: str) -> None:
        """Remove a name of an image, and the image with its last name. One in use is kept."""
        with contextlib.suppress(EngineError):
            await self._found("DELETE", f"/images/{name}")

    # Containers

    async def create(self, name: str, body: Mapping[str, Any]) -> bool:
        """Create a container; False if the engine does not have its image."""
        found = await self._found("POST", "/containers/create", params={"name": name}, json=body)
        return found is not None

    async def start(self, name: str) -> None:
        """Start a container. Raises EngineError if its program cannot be executed."""
        await self._json("POST", f"/containers/{name}/start")

    async def state(self, name: str) -> dict[str, Any] | None:
        """Return the state of a container; None if there is no such container."""
        found = await self.container(name)
        return None if found is None else dict(found["State"])

    async def container(self, name: str) -> dict[str, Any] | None:
        """Return a container with its configuration; None if there is no such container."""
        found: dict[str, Any] | None = await self._found("GET", f"/containers/{name}/json")
        return found

    async def wait(self, name: str) -> int:
        """Wait until a container has exited; return its exit status."""
        async with self._stream("POST", f"/containers/{name}/wait") as response:
            return int(json.loads(await response.aread())["StatusCode"])

    async def attach(self, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the input and the output of a container, which follow a response of HTTP."""
        path = f"/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1"
        request = f"POST {path} HTTP/1.1\r\nHost: engine\r\n"
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket)
            writer.write(f"{request}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
            answer = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError) as error:
            raise EngineError(f"The container engine cannot attach to {name}.") from error
        if answer.split()[1] not in (b"101", b"200"):
            writer.close()
            raise EngineError(f"The container engine cannot attach to {name}.")
        return reader, writer

    async def resize(self, name: str, rows: int, columns: int) -> None:
        """Set the size of the terminal of a container."""
        params = {"h": rows, "w": columns}
        await self._found("POST", f"/containers/{name}/resize", params=params)

    async def send_signal(self, name: str, signal: str) -> None:
        """Send a signal (`SIGTERM`) to the first process of a container, if it is running."""
        with contextlib.suppress(EngineError):
            await self._found("POST", f"/containers/{name}/kill", params={"signal": signal})

    async def remove(self, name: str) -> None:
        """Kill and remove a container, with its anonymous volumes; nothing if it is missing.

        A removal that is in progress is waited for.
        """
        path = f"/containers/{name}"
        response = await self._request("DELETE", path, params={"force": "1", "v": "1"})
        if response.status_code == 409:
            with contextlib.suppress(EngineError):  # It may be gone by now.
                await self._request("POST", f"{path}/wait", params={"condition": "removed"})
            if await self.container(name) is None:
                return
        if response.status_code != 404:
            _content(response)

    async def labelled(self, label: str, value: str) -> dict[str, dict[str, str]]:
        """Return the labels of all containers with a label, also of exited ones, by ID."""
        filters = json.dumps({"label": [f"{label}={value}"]})
        found = await self._json("GET", "/containers/json", params={"all": "1", "filters": filters})
        return {c["Id"]: c["Labels"] for c in found}

    @contextlib.asynccontextmanager
    async def logs(self, name: str, since: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Follow the output of a container from a time on, as the API multiplexes it."""
        params = {"follow": "1", "stdout": "1", "stderr": "1", "timestamps": "1", "since": since}
        async with self._stream("GET", f"/containers/{name}/logs", params=params) as response:
            yield response.aiter_raw()

    async def execute(
        self, name: str, command: Sequence[str], write: Callable[[bytes], object]
    ) -> tuple[int, bytes]:
        """Run a command in a container; `write` gets its standard output.

        Returns its exit status and its standard error. Raises EngineError.
        """
        body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True}
        created = await self._json("POST", f"/containers/{name}/exec", json=body)
        rest, messages = b"", bytearray()
        path = f"/exec/{created['Id']}"
        async with self._stream("POST", f"{path}/start", json={"Detach": False}) as response:
            async for data in response.aiter_raw():
                found, rest = frames(rest + data)
                for stream, content in found:
                    if stream == STDERR:
                        messages += content
                    else:
                        write(content)
        ended = await self._json("GET", f"{path}/json")
        return int(ended["ExitCode"]), bytes(messages)

    # Networks

    async def ensure_network(self, name: str) -> None:
        """Create a network in which containers find each other by name, unless it exists."""
        if await self._found("GET", f"/networks/{name}") is None:
            body = {"Name": name, "CheckDuplicate": True}
            response = await self._request("POST", "/networks/create", json=body)
            if response.status_code != 409:  # Another replica has created it meanwhile.
                _content(response)

    async def remove_network(self, name: str) -> None:
        """Remove a network; one that is in use is kept."""
        with contextlib.suppress(EngineError):
            await self._found("DELETE", f"/networks/{name}")

    # Requests

    async def _json(self, method: str, path: str, **options: Any) -> Any:
        """Send a request; return the decoded response. Raises EngineError for an error status."""
        return _content(await self._request(method, path, **options))

    async def _found(self, method: str, path: str, **options: Any) -> Any:
        """Send a request; return the decoded response, None if there is no such object."""
        response = await self._request(method, path, **options)
        return None if response.status_code == 404 else _content(response)

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self._reached():
            return await self._client.request(method, path, **options)

    @contextlib.asynccontextmanager
    async def _stream(
        self, method: str, path: str, **options: Any
    ) -> AsyncIterator[httpx.Response]:
        import httpx

        timeout = httpx.Timeout(RESPONSE_TIMEOUT_S, read=None)
        with self._reached():
            async with self._client.stream(method, path, timeout=timeout, **options) as response:
                if response.status_code >= 400:
                    await response.aread()
                    raise EngineError(_message(response))
                yield response

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        import httpx

        try:
            yield
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.TransportError) -> EngineUnreachableError:
        # The permission of a folder may be missing, too.
        if any(isinstance(each, PermissionError) for each in causes(error)):
            return EngineUnreachableError(
                f"Permission denied for the socket of the container engine: {self.socket}.",
                hint="Add your user to the group `docker` (`sudo usermod -aG docker $USER`), log "
                "in again, and run `lapwing agent stop`; or use rootless Podman.",
            )
        reason = str(error) or type(error).__name__
        return EngineUnreachableError(
            f"The container engine at {self.socket} is not running ({reason}).",
            hint="Start it: `systemctl start docker`, or `systemctl --user start podman.socket`.",
        )


def frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Split multiplexed output into frames (stream, content); return them and the rest.

    A frame has a header of 8 bytes: the first is the stream, the last 4 are its length.
    """
    found, at = [], 0
    while len(data) >= at + _HEADER_BYTES:
        end = at + _HEADER_BYTES + int.from_bytes(data[at + 4 : at + _HEADER_BYTES], "big")
        if len(data) < end:
            break
        found.append((data[at], data[at + _HEADER_BYTES : end]))
        at = end
    return found, data[at:]


def _content(response: httpx.Response) -> Any:
    if response.status_code >= 400:
        raise EngineError(f"The container engine reports: {_message(response)}.")
    return response.json() if response.content.strip() else {}


def _message(response: httpx.Response) -> str:
    """Return the message of an error of the engine."""
    try:
        return str(response.json()["message"]).strip().rstrip(".")
    except (ValueError, LookupError, TypeError):
        return f"status {response.status_code}"
