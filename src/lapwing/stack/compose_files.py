"""Load the services of a Compose project as Compose does, from several files if there are.

Files are merged in order (`compose.yaml` and `compose.override.yaml`, or those of `-f` or
`COMPOSE_FILE`), then the files of `include` are added. A service of `extends` is its base merged
with the keys of the service. Services with `profiles` that are not active are left out. The rules:
https://github.com/compose-spec/compose-spec/blob/main/13-merge.md and 14-include.md.

All build folders are relative to the top folder. What cannot be read becomes a note.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lapwing.errors import UsageError

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
DOT_ENV = ".env"
MAX_ALIASES = 50
"""Aliases of YAML multiply: no real Compose file needs this many."""
MAX_FILES = 50
"""Maximum number of files that are read for `include` and `extends` together."""
_REPLACED = ("command", "entrypoint")
"""Lists that an override replaces; other lists are appended to."""
Service = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """The Compose files (`-f`) and the active profiles (`--profile`) of a command."""

    files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


@dataclass(slots=True)
class ComposeProject:
    """The services of a project; `inactive` are those of profiles that are not active."""

    file: str
    services: dict[str, Service] = field(default_factory=dict)
    inactive: dict[str, Service] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Tagged:
    """A value with `!reset` or `!override`."""

    tag: str
    value: Any


def load(files: Mapping[str, str], choice: Choice, notes: list[str]) -> ComposeProject | None:
    """Load the project of the top folder, if it has one. Appends to the notes.

    Raises:
        UsageError: A chosen file is not a Compose file, or no service has a chosen profile.
    """
    names = _chosen(files, choice, notes)
    _check_files(files, choice)
    reader = _Reader(files, notes)
    services = reader.project(names, posixpath.dirname(names[0])) if names else None
    _check_profiles(services, choice)
    if services is None:
        return None
    project = ComposeProject(names[0])
    active = {*choice.profiles, *_setting(files, "COMPOSE_PROFILES", ",")}
    for name, service in services.items():
        profiles = {str(profile) for profile in _list(service.get("profiles"))}
        on = not profiles or "*" in active or profiles & active
        (project.services if on else project.inactive)[name] = service
        if not on:
            notes.append(
                f"{names[0]}: `{name}` is only in the profile {' or '.join(sorted(profiles))}; "
                f"left out. `lapwing init --force --profile {min(profiles)}` adds it."
            )
    return project


def _check_files(files: Mapping[str, str], choice: Choice) -> None:
    for name in choice.files:
        document = _parse(files.get(posixpath.normpath(name), ""))
        if isinstance(document, str):
            raise UsageError(
                f"{name}: not a Compose file: {document}.",
                hint="Check it: `docker compose -f FILE config`.",
            )


def _check_profiles(services: Mapping[str, Service] | None, choice: Choice) -> None:
    known = {str(p) for s in (services or {}).values() for p in _list(s.get("profiles"))}
    unknown = [p for p in choice.profiles if p != "*" and p not in known]
    if unknown:
        where = "in the Compose files" if services is not None else "as there is no Compose file"
        raise UsageError(
            f"There is no profile {unknown[0]!r} {where}.",
            hint=f"The profiles are: {', '.join(sorted(known))}."
            if known
            else "Leave out --profile.",
        )


def environment(service: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of a service, by name; one without a value is None."""
    return _pairs(service.get("environment"))


def build_folder(service: Mapping[str, Any]) -> str | None:
    """Return the build folder of a service; None if it has none, or one outside."""
    context = _mapping(service.get("build")).get("context")
    if not isinstance(context, str) or "://" in context or context.partition("/")[0] == "..":
        return None
    return context


class _Reader:
    """Reads the files of one project; each file at most once in a chain of references."""

    def __init__(self, files: Mapping[str, str], notes: list[str]) -> None:
        self._files = files
        self._notes = notes
        self._left = MAX_FILES

    def project(self, names: list[str], folder: str) -> dict[str, Service] | None:
        """Merge files, and add what they include. Return None if no file can be read."""
        merged: dict[str, Service] = {}
        included: dict[str, Service] = {}
        documents = [(name, self._document(name)) for name in names]
        if all(document is None for _, document in documents):
            return None
        for name, document in documents:
            for service, given in _services(document).items():
                own = self._extended(name, folder, service, given, ())
                merged[service] = _merged(merged.get(service, {}), own)
            for entry in _list(_mapping(document).get("include")):
                included |= self._include(name, entry)
        return included | {name: _plain(service) for name, service in merged.items()}

    def _include(self, file: str, entry: object) -> dict[str, Service]:
        given = entry if isinstance(entry, dict) else {"path": entry}
        base = posixpath.dirname(file)
        names = [_join(base, path) for path in _list(given.get("path")) if isinstance(path, str)]
        folder = given.get("project_directory")
        if not names:
            return {}
        inside = _join(base, folder) if isinstance(folder, str) else posixpath.dirname(names[0])
        return self.project(names, inside) or {}

    def _extended(
        self, file: str, folder: str, name: str, given: Service, seen: tuple[tuple[str, str], ...]
    ) -> Service:
        """Return a service merged with the one that it extends, with paths from the top folder."""
        own = _expand({key: v for key, v in given.items() if key != "extends"}, folder)
        extends = given.get("extends")
        if isinstance(extends, str):
            extends = {"service": extends}
        if not isinstance(extends, dict) or (file, name) in seen:
            return own
        other = extends.get("file")
        where = _join(posixpath.dirname(file), other) if isinstance(other, str) else file
        base_name = str(extends.get("service"))
        base = _services(self._document(where)).get(base_name)
        if base is None:
            self._note(f"{file}: `{name}` extends `{base_name}`, which is not in {where}.")
            return own
        base_folder = posixpath.dirname(where) if where != file else folder
        chain = (*seen, (file, name))
        extended = self._extended(where, base_folder, base_name, base, chain)
        return _merged(extended, own)

    def _document(self, name: str) -> dict[str, Any] | None:
        self._left -= 1
        if name not in self._files or self._left < 0:
            self._note(f"{name}: cannot be read from this folder; ignored.")
            return None
        document = _parse(self._files[name])
        if isinstance(document, str):
            self._note(f"{name}: not a valid Compose file; ignored: {document}.")
            return None
        return document

    def _note(self, note: str) -> None:
        if note not in self._notes:
            self._notes.append(note)


def _chosen(files: Mapping[str, str], choice: Choice, notes: list[str]) -> list[str]:
    """Return the files to merge: those of the command or of `.env`, or the usual ones."""
    chosen = choice.files or tuple(_setting(files, "COMPOSE_FILE", ":"))
    if chosen:
        return [posixpath.normpath(name) for name in chosen]
    file = next((name for name in NAMES if name in files), None)
    if file is None:
        return []
    base = file.rpartition(".")[0].removeprefix("docker-")
    overrides = [f"{base}.override.yaml", f"{base}.override.yml"]
    overrides += [f"docker-{name}" for name in overrides]
    override = next((name for name in overrides if name in files), None)
    if override is None:
        return [file]
    notes.append(
        f"{override}: merged, as by Compose. If it is for development only, run "
        f"`lapwing init --force -f {file}`."
    )
    return [file, override]


def _setting(files: Mapping[str, str], name: str, separator: str) -> list[str]:
    """Return the parts of a setting of Compose in `.env`."""
    found = re.findall(rf"^{name}=[\"']?([^\"'\n]*)", files.get(DOT_ENV, ""), re.M)
    return [part.strip() for part in found[-1].split(separator) if part.strip()] if found else []


def _parse(text: str) -> dict[str, Any] | str:
    """Return the document of a Compose file, or why it is invalid."""
    import yaml

    class Loader(yaml.SafeLoader):
        """A loader that keeps the two tags of Compose."""

    def tagged(loader: Any, suffix: str, node: Any) -> _Tagged:
        if isinstance(node, yaml.MappingNode):
            return _Tagged(suffix, loader.construct_mapping(node, deep=True))
        if isinstance(node, yaml.SequenceNode):
            return _Tagged(suffix, loader.construct_sequence(node, deep=True))
        return _Tagged(suffix, loader.construct_object(yaml.ScalarNode(_STRING, node.value)))

    Loader.add_multi_constructor("!", tagged)
    if len(re.findall(r"[*]\w", text)) > MAX_ALIASES:
        return f"more than {MAX_ALIASES} aliases"
    try:
        data = Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return f"invalid YAML in line {mark.line + 1}" if mark else "invalid YAML"
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return "invalid YAML"
    if not isinstance(data, dict):
        return "not a mapping"
    if "include" not in data and not isinstance(data.get("services"), dict):
        return "no `services`"
    return _CIRCULAR if _is_circular(data) else data


_CIRCULAR = "an alias (`*name`) is inside of the value that it refers to; write the value instead"


def _is_circular(value: Any, around: tuple[int, ...] = (), done: set[int] | None = None) -> bool:
    """Return whether a value contains itself, which aliases of YAML can do."""
    done = set() if done is None else done
    if id(value) in around:
        return True
    if not isinstance(value, dict | list | _Tagged) or id(value) in done:
        return False
    inner = [value.value] if isinstance(value, _Tagged) else value
    values = inner.values() if isinstance(inner, dict) else inner
    found = any(_is_circular(v, (*around, id(value)), done) for v in values)
    done.add(id(value))
    return found


_STRING = "tag:yaml.org,2002:str"


def _services(document: Mapping[str, Any] | None) -> dict[str, Service]:
    services = _mapping(_mapping(document).get("services"))
    return {str(name): s for name, s in services.items() if isinstance(s, dict)}


def _expand(service: Service, folder: str) -> Service:
    """Write the short forms of a service in full, so that they can be merged."""
    full = dict(service)
    build = full.get("build")
    if isinstance(build, str):
        build = {"context": build}
    if isinstance(build, dict):
        context = build.get("context", ".")
        if isinstance(context, str) and "://" not in context:
            context = _join(folder, context)
        full["build"] = build | {"context": context}
    if isinstance(full.get("environment"), list):
        full["environment"] = _pairs(full["environment"])
    if isinstance(full.get("depends_on"), list):
        full["depends_on"] = {str(name): {} for name in full["depends_on"]}
    return full


def _merged(base: Service, over: Service) -> Service:
    return base | {key: _merge(base.get(key), value, key) for key, value in over.items()}


def _merge(base: Any, over: Any, key: str = "") -> Any:
    if isinstance(over, _Tagged):
        return over if over.tag == "reset" else over.value
    if isinstance(base, _Tagged):
        base = None if base.tag == "reset" else base.value
    if isinstance(base, dict) and isinstance(over, dict):
        return _merged(base, over)
    if isinstance(base, list) and isinstance(over, list) and key not in _REPLACED:
        replaced = {_target(item) for item in over} if key == "volumes" else set()
        return [item for item in base if key != "volumes" or _target(item) not in replaced] + over
    return over


def _target(volume: Any) -> str:
    """Return the path of a volume in the container, by which volumes are merged."""
    if isinstance(volume, dict):
        return str(volume.get("target"))
    parts = str(volume).split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def _plain(value: Any) -> Any:
    """Return a merged value without the tags that are left, and without what they reset."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not _is_reset(v)}
        return {k: _plain(v) for k, v in kept.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value if not _is_reset(item)]
    return _plain(value.value) if isinstance(value, _Tagged) else value


def _is_reset(value: Any) -> bool:
    return isinstance(value, _Tagged) and value.tag == "reset"


def _pairs(given: object) -> dict[str, Any]:
    if isinstance(given, dict):
        return {str(name): value for name, value in given.items()}
    lines = (str(line).partition("=") for line in _list(given))
    return {name: value if equals else None for name, equals, value in lines}


def _join(folder: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(folder, path))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
