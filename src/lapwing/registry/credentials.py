"""Logins for registries: LAPWING_REGISTRY_... variables, or what docker or podman login stored.

Docker's config.json holds logins itself (`auths`) or names a credential helper: one for a registry
(`credHelpers`) or for all (`credsStore`). Podman's auth.json has the same form; its keys may name
a repository or a folder of them, and the longest key that fits is used (source:
containers-auth.json(5)). The files are searched in turn until one has the login.

A helper reads the registry's name from standard input and prints JSON (source:
docker/docker-credential-helpers, the protocol in its README). A login never gets into an error:
neither a value of the file nor the output of a helper is quoted.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lapwing.errors import RegistryLoginError
from lapwing.settings import LoginFile, Settings
from lapwing.stack.image import HUB, HUB_ALIASES, HUB_API, HUB_LOGIN

HELPER_TIMEOUT_S = 60.0
"""For a credential helper; some ask the user in a window."""
IDENTITY_USER = "<token>"
"""The user name with which a helper marks its secret as a refresh token."""


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and password, or a refresh token (`identity`), for one registry."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        pair = f"{self.user}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


class Credentials:
    """Finds the logins of registries, and caches them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._found: dict[tuple[str, str], Login | None] = {}
        self._printed: dict[tuple[str, str], Login | None] = {}
        self._lock = asyncio.Lock()

    async def login(self, host: str, repository: str = "") -> Login | None:
        """Return the login of a registry, by its host and port; None for anonymous access.

        `repository` is the one that it is needed for.

        Raises RegistryLoginError if there is one that cannot be read.
        """
        async with self._lock:
            key = (host, repository)
            if key not in self._found:
                self._found[key] = await self._find(host, repository)
            return self._found[key]

    async def _find(self, host: str, repository: str) -> Login | None:
        for name in (HUB, *sorted(HUB_ALIASES)) if host == HUB_API else (host,):
            given = self._settings.registry_login(name)
            if given:
                return Login(*given)
        for file in self._settings.login_files():
            found = await self._search(_StoredLogins(file), host, repository)
            if found:
                return found
        return None

    async def _search(self, file: _StoredLogins, host: str, repository: str) -> Login | None:
        keys = _keys(host)
        helpers = file.content.get("credHelpers")
        for key in keys:
            if isinstance(helpers, dict) and helpers.get(key):
                return await self._run_helper(str(helpers[key]), key, file.path)
        if file.content.get("credsStore"):
            for key in keys:
                found = await self._run_helper(str(file.content["credsStore"]), key, file.path)
                if found:
                    return found
        return file.stored(keys, repository)

    async def _run_helper(self, helper: str, key: str, file: Path) -> Login | None:
        if (helper, key) not in self._printed:
            self._printed[helper, key] = await self._ask_helper(helper, key, file)
        return self._printed[helper, key]

    async def _ask_helper(self, helper: str, key: str, file: Path) -> Login | None:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", helper):
            raise RegistryLoginError(
                f"{file} names an invalid credential helper.",
                hint="The name is a short word, such as `pass` or `gcloud`.",
            )
        program = f"docker-credential-{helper}"
        try:
            status, output = await _run(program, key, dict(self._settings.environ))
        except TimeoutError as error:
            raise RegistryLoginError(
                f"{program} timed out after {HELPER_TIMEOUT_S:.0f} s.",
                hint=f"It may wait for input. Try `echo {key} | {program} get`.",
            ) from error
        except OSError as error:
            raise RegistryLoginError(
                f"Cannot start {program}, the credential helper for {key}: "
                f"{error.strerror or error}.",
                hint=f"Install it, or remove {helper} from {file}.",
            ) from error
        if status != 0:
            if b"not found" in output:
                return None
            raise RegistryLoginError(
                f"{program} failed for {key} (exit status {status}).",
                hint=f"Try `echo {key} | {program} get`.",
            )
        return _parse_helper_output(program, output)


class _StoredLogins:
    """The content of a file of logins. Only Podman's has logins for a part of a registry."""

    def __init__(self, file: LoginFile) -> None:
        self.path = file.path
        self.content = _read_config(file.path)
        self._podman = file.podman

    def stored(self, keys: list[str], repository: str) -> Login | None:
        """Return the login that the file holds itself under one of `keys`."""
        auths = self.content.get("auths")
        if not isinstance(auths, dict):
            return None
        entries = {self._name(name): e for name, e in auths.items() if isinstance(e, dict)}
        folders = repository.split("/") if repository and self._podman else []
        for length in range(len(folders), -1, -1):
            for key in keys:
                entry = entries.get("/".join([_host_of(key), *folders[:length]]))
                found = _parse_entry(entry, key, self.path) if entry else None
                if found:
                    return found
        return None

    def _name(self, key: str) -> str:
        return key.lower().rstrip("/") if self._podman and "://" not in key else _host_of(key)


def _parse_entry(entry: dict[str, Any], key: str, path: Path) -> Login | None:
    if entry.get("identitytoken"):
        return Login(identity=str(entry["identitytoken"]))
    if entry.get("auth"):
        return _decoded(str(entry["auth"]), key, path)
    if entry.get("username"):
        return Login(str(entry["username"]), str(entry.get("password", "")))
    return None


def _decoded(auth: str, key: str, path: Path) -> Login:
    try:
        user, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon:
        raise RegistryLoginError(
            f"The login of {key} in {path} is invalid.", hint=f"Run `docker login {key}` again."
        ) from None
    return Login(user, password.rstrip("\0"))


def _keys(host: str) -> list[str]:
    """Return the names under which the login of a registry may be stored."""
    return [HUB_LOGIN, HUB, HUB_API] if host == HUB_API else [host]


def _host_of(name: str) -> str:
    """Return a key of `auths` without scheme and path: old files have URLs there."""
    return re.sub(r"^https?://", "", name).split("/", 1)[0].lower()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RegistryLoginError(f"Cannot read {path}: {error.strerror or error}.") from error
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RegistryLoginError(
            f"{path} is not valid JSON.", hint="Correct it, or rename it and log in again."
        )
    return found


async def _run(program: str, key: str, environ: dict[str, str]) -> tuple[int, bytes]:
    """Run a helper; return its exit status and up to 64 KiB of output. Raises OSError."""
    process = await asyncio.create_subprocess_exec(
        program,
        "get",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environ,
    )
    try:
        async with asyncio.timeout(HELPER_TIMEOUT_S):
            output, _ = await process.communicate(key.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output[:65536]


def _parse_helper_output(program: str, output: bytes) -> Login | None:
    try:
        found = json.loads(output)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError):
        raise RegistryLoginError(
            f"{program} printed an invalid login.",
            hint=f"Log in again, or try {program} on its own.",
        ) from None
    if not secret:
        return None
    return Login(identity=secret) if user == IDENTITY_USER else Login(user, secret)
