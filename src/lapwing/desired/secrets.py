"""Secrets: encrypted at rest, versioned, never in git.

The desired state has the name of a secret and the version of its value; only this store, on this
machine, has the value. Values are encrypted with Fernet (AES-128-CBC with HMAC-SHA256, from the
`cryptography` package) under a key beside them, in a folder that only its user may read. This keeps
values out of backups of single files, searches and screens, but does not protect them from another
process of the same user. A version is a keyed digest of name and value: the same value has the same
version, and a version does not reveal the value.

The environment of a branch reads the secrets of its template, too; its values take precedence.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import secrets as random
import string
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lapwing.errors import SecretError
from lapwing.plan.model import Document
from lapwing.stack.branch_names import template_of
from lapwing.system import locks
from lapwing.system.files import write_atomic
from lapwing.system.sanitize import escape_controls, mask

KEPT_VERSIONS = 20
"""Values kept of each secret: a rollback needs the one that a release was deployed with."""

_ALPHABET = string.ascii_letters + string.digits
"""The characters of a generated value of a given length: none needs an escape in URLs or shells."""


class SecretStore:
    """The secrets of all environments of this machine."""

    def __init__(self, folder: Path) -> None:
        """Use the secrets below `folder`, which is created when one is set."""
        self._folder = folder

    def __repr__(self) -> str:
        """Return the folder only, never a value."""
        return f"SecretStore({str(self._folder)!r})"

    def set(self, stack: str, environment: str, name: str, value: str) -> str:
        """Store a value and make it the current one; return its version.

        Raises SecretError if the store's key is missing or damaged.
        """
        key = self._key(create=True)
        version = hmac.new(key, f"{name}\0{value}".encode(), hashlib.sha256).hexdigest()[:12]
        with self._changing(stack, environment) as entries:
            entry = entries.setdefault(name, {"current": "", "values": {}})
            entry["values"].pop(version, None)
            entry["values"][version] = {"sealed": _encrypt(key, value), "since": int(time.time())}
            entry["current"] = version
            for old in list(entry["values"])[:-KEPT_VERSIONS]:
                del entry["values"][old]
        return version

    def generate(
        self, stack: str, environment: str, name: str, characters: int | None = None
    ) -> str:
        """Store a random value as the current one; return its version.

        It has `characters` letters and digits, by default 32 random bytes in URL-safe base64.
        """
        if characters is None:
            value = random.token_urlsafe(32)
        else:
            value = "".join(random.choice(_ALPHABET) for _ in range(characters))
        return self.set(stack, environment, name, value)

    def get(self, stack: str, environment: str, name: str, version: str) -> str:
        """Return the value of a version. Raises SecretError if it is missing or unreadable."""
        entry = self._read(stack, environment).get(name, {"values": {}})
        sealed = entry["values"].get(version)
        if sealed is None:
            raise SecretError(
                f"Version {version} of secret {name} is not on this machine: it was removed, or "
                "replaced several times.",
                hint=f"Run `lapwing secret set {name} -e {environment}` with the value that it "
                "had, and try again: the same value has the same version. Another value is for "
                f"new deployments only: run `lapwing deploy -e {environment}` after it.",
            )
        return _decrypt(self._key(create=False), sealed["sealed"], name, environment)

    def check(self, document: Document) -> Iterator[tuple[str, SecretError]]:
        """Yield each service that cannot be started again, and why: a secret was removed."""
        for name, service in document.services.items():
            for secret, version in service.secrets.items():
                try:
                    self.get(document.stack, document.environment, secret, version)
                except SecretError as error:
                    yield name, error

    def current(self, stack: str, environment: str) -> dict[str, str]:
        """Return the current version of each secret."""
        return {n: e["current"] for n, e in self._read(stack, environment).items()}

    def variables(self, stack: str, environment: str) -> dict[str, str]:
        """Return the secrets that are variables of Lapwing, such as LAPWING_DESIRED_TOKEN."""
        found = self.current(stack, environment)
        ours = {name: version for name, version in found.items() if name.startswith("LAPWING_")}
        return {name: self.get(stack, environment, name, v) for name, v in ours.items()}

    def mask(self, text: str, stack: str = "*", environment: str = "*") -> str:
        """Replace every stored value in a text by `***`, and escape control characters.

        Without a stack, the values of all stacks are replaced. Never raises: values that cannot be
        decrypted are in no process either.
        """
        values = []
        names = dict.fromkeys((environment, template_of(environment)))
        for path in (p for n in names for p in self._folder.glob(f"{stack}/{n}.json")):
            with contextlib.suppress(SecretError):
                key = self._key(create=False)
                for name, entry in self._read_file(path.parent.name, path.stem).items():
                    values += [
                        _decrypt(key, v["sealed"], name, path.stem)
                        for v in entry["values"].values()
                    ]
        return mask(escape_controls(text), values)

    def listing(self, stack: str, environment: str) -> list[tuple[str, str, int]]:
        """Return name, current version and the Unix time when it was set, sorted by name."""
        found = self._read(stack, environment)
        return [
            (n, e["current"], e["values"][e["current"]]["since"]) for n, e in sorted(found.items())
        ]

    def remove(self, stack: str, environment: str, name: str) -> bool:
        """Remove a secret with all its versions; return whether it existed."""
        with self._changing(stack, environment) as entries:
            return entries.pop(name, None) is not None

    def remove_all(self, stack: str, environment: str) -> None:
        """Remove every secret of an environment, but not those of its template."""
        with self._locked():
            self._path(stack, environment).unlink(missing_ok=True)

    def _path(self, stack: str, environment: str) -> Path:
        return self._folder / stack / f"{environment}.json"

    def _read(self, stack: str, environment: str) -> dict[str, Any]:
        names = dict.fromkeys((template_of(environment), environment))
        return {k: v for name in names for k, v in self._read_file(stack, name).items()}

    def _read_file(self, stack: str, environment: str) -> dict[str, Any]:
        path = self._path(stack, environment)
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            whole = all(isinstance(e["values"][e["current"]]["since"], int) for e in found.values())
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise SecretError(
                f"{path} is damaged.",
                hint="Rename it, then set each secret with "
                f"`lapwing secret set NAME -e {environment}`.",
            )
        return found

    @contextlib.contextmanager
    def _changing(self, stack: str, environment: str) -> Iterator[dict[str, Any]]:
        path = self._path(stack, environment)
        with self._locked():
            entries = self._read_file(stack, environment)
            yield entries
            path.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomic(path, json.dumps(entries, indent=1).encode())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        with locks.hold(self._folder / "lock"):
            yield

    def _key(self, *, create: bool) -> bytes:
        path = self._folder / "key"
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            key = b""
        if _is_key(key):
            return key
        sealed = any(self._folder.glob("*/*.json"))
        if sealed or not create:
            raise SecretError(
                f"The key of the secrets, {path}, is {'damaged' if key else 'missing'}.",
                hint="Restore it from a backup: the stored values cannot be read without it. "
                f"To start over, remove {self._folder} and set each secret again.",
            )
        from cryptography.fernet import Fernet

        with self._locked():
            if not path.is_file() or not _is_key(path.read_bytes()):
                write_atomic(path, Fernet.generate_key())
            return path.read_bytes()


def _is_key(data: bytes) -> bool:
    """Whether this is a Fernet key: 32 bytes in URL-safe base64."""
    try:
        return len(data) == 44 and len(base64.b64decode(data, altchars=b"-_", validate=True)) == 32
    except ValueError:
        return False


def _encrypt(key: bytes, value: str) -> str:
    from cryptography.fernet import Fernet

    return Fernet(key).encrypt(value.encode()).decode()


def _decrypt(key: bytes, sealed: str, name: str, environment: str) -> str:
    from cryptography.fernet import Fernet, InvalidToken

    try:
        return Fernet(key).decrypt(sealed).decode()
    except (InvalidToken, ValueError) as error:
        raise SecretError(
            f"Secret {name} cannot be decrypted with the key on this machine.",
            hint=f"Set it again with `lapwing secret set {name} -e {environment}`.",
        ) from error
