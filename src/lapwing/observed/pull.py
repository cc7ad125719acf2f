"""The environments that the agent of this machine pulls, and how that went.

    pull/<stack>/<environment>.json          the source: written by `lapwing agent pull`
    pull/<stack>/<environment>.state.json    the state: written by each pull

The source has the signers, so a pushed commit cannot change who is accepted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from lapwing.settings import Settings
from lapwing.system.files import write_atomic

Record = TypeVar("Record")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The desired-state repository of an environment.

    `signers` is the content of the file of accepted signers; None if commits need no signature.
    A `paused` one is not pulled. `registered` is the Unix time of the command that wrote it.
    """

    url: str
    interval: float = 30.0
    signers: str | None = None
    paused: bool = False
    registered: float = 0.0


class State(msgspec.Struct, kw_only=True):
    """What the last pulls of an environment found.

    `accepted` is the last commit whose history and signatures were valid, `document` the digest of
    the document that was last committed on this machine, `problem` why nothing was changed.
    """

    accepted: str | None = None
    document: str | None = None
    problem: str | None = None


def sources(settings: Settings) -> dict[tuple[str, str], Source]:
    """Return the source of each environment that is pulled, by stack and environment."""
    found = {}
    for path in settings.pull.glob("*/*.json"):
        if not path.name.endswith(".state.json"):
            key = (path.parent.name, path.stem)
            if (source := _read(path, Source)) is not None and not source.paused:
                found[key] = source
    return found


def source(settings: Settings, stack: str, environment: str) -> Source | None:
    """Return the source of an environment of this machine; None if it has none."""
    return _read(_path(settings, stack, environment), Source)


def set_source(settings: Settings, stack: str, environment: str, given: Source) -> None:
    """Set the source of an environment; unless it is paused, forget what was accepted before."""
    path = _path(settings, stack, environment)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not given.paused:
        path.with_suffix(".state.json").unlink(missing_ok=True)
    write_atomic(path, msgspec.json.encode(given))


def state(settings: Settings, stack: str, environment: str) -> State:
    """Return the state of an environment; an empty one before the first pull."""
    found = _read(_path(settings, stack, environment).with_suffix(".state.json"), State)
    return found or State()


def set_state(settings: Settings, stack: str, environment: str, found: State) -> None:
    """Write the state of an environment. Raises OSError."""
    path = _path(settings, stack, environment).with_suffix(".state.json")
    write_atomic(path, msgspec.json.encode(found))


def _path(settings: Settings, stack: str, environment: str) -> Path:
    return settings.pull / stack / f"{environment}.json"


def _read(path: Path, kind: type[Record]) -> Record | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None
