"""The table of images in the architecture document, compared with the images that are built."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.needs import require

from .conftest import VERSION, Stack
from .test_build import names_of

pytestmark = pytest.mark.xdist_group("image")

PACKAGE = '{"name": "n", "version": "1.0.0", "dependencies": {"is-odd": "3.0.1"}}'
FILES = {
    "api/requirements.txt": "markupsafe==3.0.2\n",
    "api/app.py": "print()\n",
    "tool/pyproject.toml": '[project]\nname = "tool"\nversion = "1"\n'
    'dependencies = ["six==1.17.0"]\n'
    '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    '[tool.hatch.build.targets.wheel]\npackages = ["tool"]\n',
    "tool/tool/__init__.py": "",
    "node/package.json": PACKAGE,
    "node/server.js": "0",
    "web/dist/index.html": "<p>hello</p>",
    "web/dist/assets/app-AbCd1234.js": "hashed",
    ".gitignore": "node_modules\n",
}


def stack_file(server: str) -> str:
    python = f"base: '{server}/library/python:{VERSION}-slim'"
    return (
        f"stack: shop\nregistry: {server}/team\nservices:\n"
        f"  api: {{build: {{path: ./api, {python}}}, command: python app.py, route: /api}}\n"
        f"  tool: {{build: {{path: ./tool, {python}}}, command: python -m tool}}\n"
        f"  node: {{build: {{path: ./node, base: '{server}/library/node:22-slim'}},"
        " command: node server.js, route: /node}\n"
        "  web: {build: ./web, static: dist, route: /}\n"
        "environments:\n  production: {target: kubernetes, services: {tool: {user: 1234}}}\n"
    )


def rows_of(document: str) -> dict[str, list[str]]:
    table = document[document.index("| Image | ") :].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {name: rest for name, *rest in cells}


def test_document_describes_the_layers_of_built_images(stack: Stack) -> None:
    require("npm")
    stack.write({**FILES, "lapwing.yaml": stack_file(stack.server.host)})
    subprocess.run(
        ["npm", "install", "--silent", "--package-lock-only"],
        cwd=stack.installation.folder / "node",
        check=True,
        capture_output=True,
    )
    stack.write({})
    done = stack.installation.call("design", "-e", "production")
    assert done.returncode == 0, done.stderr
    document = done.stdout
    rows = rows_of(document)
    built = stack.build("--push", "-e", "production")
    assert rows.keys() == built.keys()
    for service, image in built.items():
        base, layers, shown = rows[service]
        user = shown.removeprefix("UID ")
        assert base == {"scratch": "none"}.get(image["base"], image["base"])
        assert stack.config(service, image["digest"])["config"]["User"] == f"{user}:{user}"
        described = [re.findall(r"`(/[^`]+)`", layer) for layer in layers.split("; ")]
        found = [names_of(members) for members in stack.layers(service, image["digest"])]
        assert len(described) == len(found), service
        for paths, names in zip(described, found, strict=True):
            for path in paths:
                assert any(f"/{name}".startswith(path) for name in names), (service, path)
            for name in names:
                held = [p for p in paths if f"/{name}".startswith(p) or p.startswith(f"/{name}/")]
                assert held, (service, name)
    assert "packages of `requirements.txt` in `/opt/venv`; the program in `/app`" in document
    assert "the program in `/app` and `/opt/venv`" in rows["tool"][1]
