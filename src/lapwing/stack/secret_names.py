"""The names of secrets in a stack file, and the settings of its services, without validation.

A command about secrets works with a file that is not valid yet.
"""

from __future__ import annotations

from typing import Any

from lapwing.stack.source import ACCESS_KEYS, Source


def secret_names(read: Source) -> list[str]:
    """Return the names of the secrets of services and environments."""
    return sorted(deployed_secrets(read) | current_secrets(read))


def deployed_secrets(read: Source) -> set[str]:
    """Return the names of the secrets whose new values are used after a deployment."""
    services = service_settings(read)
    lists = [s.get("secrets") for s in services]
    entries = [e for entries in lists if isinstance(entries, list) for e in entries]
    for key, name in (("tls", "key"), ("access", "basic_auth")):
        parts = _parts([*_environments(read), *services], key)
        entries += [p[name] for p in parts if isinstance(p.get(name), str)]
    names = [e.get("name") if isinstance(e, dict) else e for e in entries]
    return {str(name) for name in names if name}


def current_secrets(read: Source) -> set[str]:
    """Return the names of the secrets whose new values a machine uses without a deployment."""
    environments = _environments(read)
    sent = _parts(_parts(environments, "logs"), "headers")
    names = {name for headers in sent for name in headers.values() if isinstance(name, str)}
    backups = _parts(environments, "backup")
    has_bucket = any(str(backup.get("to")).startswith("s3://") for backup in backups)
    return names | set(ACCESS_KEYS if has_bucket else ())


def service_settings(read: Source) -> list[dict[str, Any]]:
    """Return the settings of services, also those in environments."""
    found = _mappings(read.data.get("services"))
    for environment in _environments(read):
        found += _mappings(environment.get("services"))
    return found


def _environments(read: Source) -> list[dict[str, Any]]:
    return _mappings(read.data.get("environments"))


def _parts(settings: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Return what several settings have under a key, if it is a mapping."""
    return [part for part in (each.get(key) for each in settings) if isinstance(part, dict)]


def _mappings(found: object) -> list[dict[str, Any]]:
    """Return the mappings in a mapping."""
    values = found.values() if isinstance(found, dict) else ()
    return [value for value in values if isinstance(value, dict)]
