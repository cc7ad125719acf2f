"""The example application, built and served without Lapwing.

The API runs under gunicorn on an embedded store, the page comes from Caddy, which also passes
/api on: what `lapwing up` arranges, with nothing that could hide a fault of the example itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import free_port
from tests.needs import require

EXAMPLE = Path(__file__).parents[3] / "examples" / "company-inc"
BIN = Path(sys.executable).parent
CADDYFILE = """
{{
    admin off
    auto_https off
    persist_config off
}}
http://127.0.0.1:{port} {{
    handle /api/* {{
        reverse_proxy 127.0.0.1:{api} {{
            flush_interval -1
        }}
    }}
    handle {{
        root * {dist}
        try_files {{path}} /index.html
        file_server
    }}
}}
"""


@pytest.fixture(scope="session")
def api_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with what the API and its tests need, from the lock file."""
    folder = tmp_path_factory.mktemp("api") / "venv"
    python = folder / "bin" / "python"
    uv = BIN / "uv"
    lock = EXAMPLE / "api" / "requirements-dev.txt"
    run([uv, "venv", "--quiet", "--python", sys.executable, folder])
    run([uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", lock])
    return python


@pytest.fixture(scope="session")
def web_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the page's source with its dependencies, from the lock file."""
    require("node")
    folder = tmp_path_factory.mktemp("web") / "web"
    ignore = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(EXAMPLE / "web", folder, ignore=ignore)
    run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder)
    return folder


@pytest.fixture(scope="session")
def example_url(
    tmp_path_factory: pytest.TempPathFactory, api_python: Path, web_source: Path
) -> Iterator[str]:
    """The address of the running example."""
    folder = tmp_path_factory.mktemp("example")
    run(["npm", "run", "build"], cwd=web_source)
    port, api = free_port(), free_port()
    environ = {
        **os.environ,
        "DB_URL": f"embedded://{folder}/db",
        "SESSION_KEY": "test",
        "LAPWING_RELEASE": "api-e2e",
        "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{api}",
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    run([api_python, "migrate.py"], cwd=EXAMPLE / "api", env=environ)
    caddyfile = folder / "Caddyfile"
    caddyfile.write_text(CADDYFILE.format(port=port, api=api, dist=web_source / "dist"))
    with contextlib.ExitStack() as stack:
        for name, arguments in (
            ("api", [api_python, "-m", "gunicorn", "app:app"]),
            ("caddy", [BIN / "caddy", "run", "--adapter=caddyfile", f"--config={caddyfile}"]),
        ):
            stack.enter_context(
                running(arguments, EXAMPLE / "api", environ, folder / f"{name}.log")
            )
        url = f"http://127.0.0.1:{port}"
        wait(f"{url}/api/healthz", folder)
        yield url


def run(arguments: list[Path | str], **more: object) -> None:
    """Run a command to its end; a failure shows what it printed."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"


@contextlib.contextmanager
def running(
    arguments: list[Path | str], cwd: Path, environ: dict[str, str], log: Path
) -> Iterator[None]:
    """A program for as long as the block runs."""
    with log.open("wb") as out:
        process = subprocess.Popen(arguments, cwd=cwd, env=environ, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait(url: str, logs: Path) -> None:
    """Return when `url` answers with success."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            said = "".join(path.read_text() for path in logs.glob("*.log"))
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
