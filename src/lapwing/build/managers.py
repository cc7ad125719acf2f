"""The package managers of Node sources: npm, Yarn, pnpm and Bun.

The lock file chooses the manager. A manager other than npm is installed from the npm registry in
the version that `packageManager` of package.json names, as Corepack does; without that field, it
has to be on the PATH. Each installs into a `node_modules` folder of copied files: not Yarn's PnP,
and no hard links to a cache, because a release is read-only and changes no file outside of it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lapwing.build.detect import NODE_LOCKS
from lapwing.errors import BuildError

INSTALL_SCRIPTS = ("preinstall", "install", "postinstall")
VARIABLE = re.compile(r"(?<!\\)\$\{(\w+)(\?|:?-[^}]*)?\}")
"""A variable in a file of settings; npm and Yarn allow it to be unset in these other forms."""
YARN_1 = "# yarn lockfile v1"
PINNED = re.compile(r"(npm|yarn|pnpm|bun)@(\d[\w.-]*)")
LOCAL = re.compile(r"\b(?:file|link|portal):|\bpatch:(?!.*builtin<)|workspace:(?!\.\")")
"""What a lock file has for packages that are part of the source."""


@dataclass(frozen=True, slots=True)
class Manager:
    """A package manager: its program, its lock file, and the arguments that install exactly it.

    `settings` are the files that it reads beside package.json and the lock file. `source` is the
    package of the npm registry with the program, and `version` the one that package.json names.
    """

    name: str
    arguments: str
    settings: tuple[str, ...] = (".npmrc",)
    env: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    lock: str = ""
    version: str | None = None

    def find(self, path: str) -> str:
        """Return its program on a PATH. Raises BuildError."""
        found = shutil.which(self.name, path=path)
        if found is None:
            raise BuildError(
                f"{self.lock} needs {self.name}, which is not on the PATH.",
                hint=f"Name its version in package.json, and it is installed for the build: "
                f"`npm pkg set packageManager={self.name}@VERSION`. Or install it on this machine.",
            )
        return found


NPM = Manager("npm", "ci --include=dev")
YARN_CLASSIC = Manager(
    "yarn",
    "install --frozen-lockfile --non-interactive --production=false",
    (".npmrc", ".yarnrc"),
    source="yarn",
)
MANAGERS = {
    "npm": NPM,
    "pnpm": Manager(
        "pnpm",
        "install --frozen-lockfile --prod=false --package-import-method=copy",
        (".npmrc", "pnpm-workspace.yaml"),
        source="pnpm",
    ),
    "bun": Manager(
        "bun",
        "install --frozen-lockfile --backend=copyfile",
        (".npmrc", "bunfig.toml"),
        source="bun",
    ),
    "yarn": Manager(
        "yarn",
        "install --immutable",
        (".yarnrc.yml",),
        {
            "YARN_NODE_LINKER": "node-modules",
            "YARN_NM_MODE": "classic",
            "YARN_ENABLE_GLOBAL_CACHE": "true",
            "YARN_ENABLE_TELEMETRY": "false",
        },
        source="@yarnpkg/cli-dist",
    ),
}


def choose(package: Mapping[str, Any], folder: Path, files: Collection[str]) -> Manager:
    """Return the manager of the source in `folder`. Raises BuildError if that is not clear."""
    pinned = PINNED.match(str(package.get("packageManager", "")))
    name, version = pinned.groups() if pinned else (None, None)
    lock = _lock_file(files, name)
    found = MANAGERS[NODE_LOCKS[lock]]
    if found.name == "yarn" and YARN_1 in (folder / lock).read_text("utf-8", errors="replace"):
        found = YARN_CLASSIC
    return replace(found, lock=lock, version=version if name == found.name else None)


def _lock_file(files: Collection[str], wanted: str | None) -> str:
    """Return the lock file of a source that has at least one; `wanted` is its manager, if named.

    Raises BuildError if several managers have one.
    """
    found = [name for name in NODE_LOCKS if name in files]
    of_wanted = [name for name in found if NODE_LOCKS[name] == wanted]
    if of_wanted or len({NODE_LOCKS[name] for name in found}) == 1:
        return (of_wanted or found)[0]
    raise BuildError(
        f"There are several lock files: {', '.join(found)}.",
        hint="Remove those that are not used, or name the package manager in `packageManager` of "
        "package.json.",
    )


def separable(
    manager: Manager, package: Mapping[str, Any], folder: Path, files: Collection[str]
) -> bool:
    """Return whether package.json, the lock and the settings alone decide what is installed."""
    scripts = package.get("scripts") or {}
    if package.get("workspaces") or any(name in scripts for name in INSTALL_SCRIPTS):
        return False
    lock = folder / manager.lock
    if manager.name == "npm":
        packages = (read_json(lock).get("packages") or {}).values()
        found = [each for each in packages if isinstance(each, dict)]
        return not any(p.get("link") or str(p.get("resolved")).startswith("file:") for p in found)
    workspace = folder / "pnpm-workspace.yaml"
    if workspace.is_file() and re.search(r"^packages:", workspace.read_text("utf-8"), re.M):
        return False
    if manager.lock == "bun.lockb" or any(n.startswith((".yarn/", ".pnpmfile.")) for n in files):
        return False
    return LOCAL.search(lock.read_text("utf-8", errors="replace")) is None


def read_json(path: Path) -> dict[str, Any]:
    """Read an object from a JSON file. Raises BuildError."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise BuildError(f"{path.name} is not valid: {error}.", hint="Correct it.") from error
    if not isinstance(found, dict):
        raise BuildError(f"{path.name} is not an object.", hint="Correct it.")
    return found


def required_variables(
    folder: Path, manager: Manager, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables that the manager's settings refer to, such as `${NPM_TOKEN}`.

    Settings of the user may refer to others than this source needs. Raises BuildError if one of
    the source is not set.
    """
    found = {}
    for name in manager.settings:
        for variable, optional in _referred(folder / name):
            if variable in environ:
                found[variable] = environ[variable]
            elif not optional:
                raise BuildError(
                    f"{name} refers to ${{{variable}}}, which is not set.",
                    hint=f"Set {variable} in the environment of this command. Only the "
                    "installation of packages gets it.",
                )
    home = Path(environ.get("HOME", "/nonexistent"))
    given = environ.get("NPM_CONFIG_USERCONFIG") or environ.get("npm_config_userconfig")
    for path in (Path(given) if given else home / ".npmrc", home / ".yarnrc.yml"):
        found |= {v: environ[v] for v, _ in _referred(path) if v in environ}
    return found


def _referred(path: Path) -> Iterator[tuple[str, str]]:
    """The variables in a file of settings, and what allows each to be unset."""
    if path.is_file():
        for line in path.read_text("utf-8", errors="replace").splitlines():
            if not line.lstrip().startswith(("#", ";")):
                yield from VARIABLE.findall(line)
