"""A machine that pulls images by digest, built elsewhere, and runs them as containers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lapwing.desired.repository import DesiredRepository
from tests.installation import installation
from tests.integration.image.docker import Docker
from tests.integration.pull.conftest import pair
from tests.needs import require
from tests.registries import docker_registry

STACK = """\
stack: shop
registry: {registry}
services:
  app:
    build: {{path: ./app, base: '{base}'}}
    command: python -m http.server $PORT --bind 0.0.0.0
    route: /
    health: {{path: /page.html, interval: 1s}}
    volumes: {{uploads: uploads}}
    rollout: {{keep_old: 0s, stop_grace: 1s}}
environments:
  production:
    runtime: container
    desired: {{url: "{url}", interval: 1s}}
"""


def test_images_are_pulled_and_deployed(docker: Docker, base: str, tmp_path: Path) -> None:
    remote = tmp_path / "desired.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", remote], check=True)
    with (
        docker_registry(require("registry"), tmp_path / "registry") as server,
        pair(tmp_path, str(remote), server.host, **docker.environ) as place,
    ):
        place.write(STACK.format(registry=server.host, base=base, url=remote))
        for version in ("one", "two"):
            place.ci.write({"app/page.html": version, "app/uploads/first.txt": "first"})
            place.ci.run("ship", "-e", "production", "--scan", "off")
            if version == "one":
                place.follow()
            place.wait_for_answer(version, "/page.html")
        assert place.answer("/uploads/first.txt") == "first"
        settings = place.machine.settings
        document = DesiredRepository(settings.desired).read("shop", "production")
        assert document is not None
        service = document.services["app"]
        assert service.image is not None
        assert service.image.startswith(server.host)
        assert "@sha256:" in service.image
        assert service.container is not None
        assert service.container.user > 0


def test_image_of_several_services_is_pulled_once(
    docker: Docker, base: str, tmp_path: Path
) -> None:
    services = "".join(
        f"  {name}: {{kind: worker, image: '{base}', user: 1000, command: sleep 9}}\n"
        for name in ("one", "two")
    )
    with installation(tmp_path, **docker.environ) as where:
        where.write({"lapwing.yaml": f"stack: shop\nservices:\n{services}"})
        messages = where.run("deploy", "--dry-run").stderr.splitlines()
    assert messages.count(f"pulling {base}") == 1, messages
