"""Images built by the real uv and npm and pushed to a real registry, without a container engine."""

from __future__ import annotations

import gzip
import shutil
import stat
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lapwing.build.image import layer
from lapwing.build.python import uv
from lapwing.stack.image_lock import read_lock
from lapwing.stack.load import load
from lapwing.targets.image_pins import pin_images, unpinned
from tests.faulty import proxy
from tests.installation import LAPWING
from tests.needs import require
from tests.registries import Server

from .conftest import PYTHON, VERSION, Stack, push_base

pytestmark = pytest.mark.xdist_group("image")

APP = {
    "api/requirements.txt": "markupsafe==3.0.2\n",
    "api/app.py": "import markupsafe\nprint(markupsafe.escape('<'))\n",
    "api/run.sh": "#!/bin/sh\n",
    ".gitignore": "__pycache__/\n",
}
PACKAGES = f"opt/venv/lib/python{VERSION}/site-packages"


def stack_file(server: Server, **service: str) -> str:
    lines = {
        "build": f'{{path: ./api, base: "{server.host}/library/python:{VERSION}-slim"}}',
        "command": "python app.py",
        "route": "/",
        **service,
    }
    body = "\n".join(f"    {key}: {value}" for key, value in lines.items())
    return f"stack: shop\nregistry: {server.host}/team\nservices:\n  api:\n{body}\n"


@pytest.fixture
def shop(stack: Stack) -> Stack:
    """A stack with a Python service, committed."""
    stack.write({**APP, "lapwing.yaml": stack_file(stack.server)})
    return stack


def env_of(config: dict[str, Any]) -> dict[str, str]:
    return dict(text.partition("=")[::2] for text in config["config"]["Env"])


def names_of(members: list[tarfile.TarInfo]) -> list[str]:
    return [member.name for member in members]


def test_python_image_has_base_dependencies_and_program(shop: Stack) -> None:
    built = shop.build("api", "--push")["api"]
    commit = shop.installation.git("rev-parse", "HEAD")
    assert built["tags"] == built["pushed"] == [commit, "latest"]
    assert shop.server.whole("team/api", commit) == built["digest"]
    assert shop.server.whole("team/api", "latest") == built["digest"]
    assert built["blobs"]["mounted"] == 1, "the layer of the base is in the same registry"
    config = shop.config("api", built["digest"])
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Cmd"] == ["python", "app.py"]
    assert "Entrypoint" not in config["config"]
    assert config["config"]["WorkingDir"] == "/app"
    found = env_of(config)
    assert found["PORT"] == "8080"
    assert found["HOME"] == "/tmp"
    assert found["PATH"] == f"/opt/venv/bin:{PYTHON['PATH']}"
    labels = config["config"]["Labels"]
    assert labels["org.opencontainers.image.revision"] == commit
    assert labels["org.opencontainers.image.base.digest"] == built["base_digest"]
    dependencies, program = shop.layers("api", built["digest"])
    assert f"opt/venv/lib/python{VERSION}/site-packages/markupsafe/__init__.py" in names_of(
        dependencies
    )
    assert "app/app.py" in names_of(program)
    python = next(m for m in dependencies if m.name == "opt/venv/bin/python")
    assert python.linkname == f"/usr/local/bin/python{VERSION}"


@pytest.mark.parametrize("locked", [True, False], ids=["uv.lock", "pyproject.toml"])
def test_image_has_chosen_extras_and_groups(stack: Stack, locked: bool) -> None:
    project = (
        '[project]\nname = "api"\nversion = "1"\nrequires-python = ">=3.11"\n'
        '[project.optional-dependencies]\nsix = ["six==1.17.0"]\n'
        '[dependency-groups]\nworker = ["idna==3.10"]\n'
    )
    base = f"{stack.server.host}/library/python:{VERSION}-slim"
    build = f'{{path: ./api, base: "{base}", extras: [six], groups: [worker]}}'
    files = {"api/pyproject.toml": project, "api/app.py": ""}
    stack.write(files | {"lapwing.yaml": stack_file(stack.server, build=build)})
    if locked:
        folder = stack.installation.folder / "api"
        subprocess.run([uv(), "lock", "-q"], cwd=folder, check=True)
        stack.write({})
    names = names_of(stack.layers("api", stack.build("api", "--push")["api"]["digest"])[0])
    assert f"{PACKAGES}/six.py" in names
    assert f"{PACKAGES}/idna/__init__.py" in names


def test_layers_hold_nothing_of_the_machine_that_built_them(shop: Stack, tmp_path: Path) -> None:
    (shop.installation.folder / "api" / "run.sh").chmod(0o700)
    shop.write({})
    digest = shop.build("api", "--push")["api"]["digest"]
    for members in shop.layers("api", digest):
        assert names_of(members) == sorted(names_of(members))
        for member in members:
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
            assert member.issym() or member.mode in (0o644, 0o755)
    for archive in shop.archives("api", digest):
        for member in archive:
            if member.isfile():
                content = archive.extractfile(member)
                assert content is not None
                data = content.read()
                assert str(tmp_path).encode() not in data, member.name
                if member.name.endswith(".pyc"):
                    assert struct.unpack("<I", data[4:8]) == (1,), "checked by hash, never by time"
    modes = {m.name: m.mode for m in shop.layers("api", digest)[1]}
    assert modes["app/run.sh"] == 0o755
    assert modes["app/app.py"] == 0o644


def test_same_commit_has_same_digest_in_another_folder_umask_and_time_zone(
    shop: Stack, tmp_path: Path
) -> None:
    first = shop.build("api")["api"]["digest"]
    other = tmp_path / "a" / "much" / "deeper" / "folder"
    shop.installation.git("clone", "-q", str(shop.installation.folder), str(other))
    environ = {**shop.installation.environ, "LAPWING_HOME": str(tmp_path / "home2")}
    done = subprocess.run(
        [LAPWING, "image", "build", "api"],
        cwd=other,
        env={**environ, "TZ": "Pacific/Auckland", "LC_ALL": "C", "USER": "somebody"},
        umask=0o077,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().endswith(first)


def test_unchanged_content_keeps_its_digest_and_is_not_sent_again(shop: Stack) -> None:
    first = shop.build("api", "--push")["api"]
    shop.write({"other/README.md": "a change elsewhere"})
    again = shop.build("api", "--push")["api"]
    assert again["digest"] == first["digest"]
    assert again["tags"] != first["tags"]
    assert again["bytes_sent"] == 0
    assert sum(again["blobs"].values()) == 0
    assert shop.server.whole("team/api", again["tags"][0]) == first["digest"]


def test_commit_of_settings_alone_keeps_the_digest(shop: Stack) -> None:
    """The stack file and an `env_file` are in the source folder, but are not part of the image."""
    build = f'{{path: ., base: "{shop.server.host}/library/python:{VERSION}-slim"}}'
    shop.write({"requirements.txt": "# Nothing", "api.env": "A=1\n"})
    shop.write({"lapwing.yaml": stack_file(shop.server, build=build)})
    first = shop.build("api")["api"]["digest"]
    settings = stack_file(shop.server, build=build, env_file="api.env")
    shop.write({"lapwing.yaml": settings})
    without = shop.build("api")["api"]["digest"]
    shop.write({"lapwing.yaml": f"{settings}    env: {{B: 2}}\n", "api.env": "A=2\n"})
    assert shop.build("api")["api"]["digest"] == without != first


def test_changed_line_sends_only_the_program(shop: Stack) -> None:
    shop.build("api", "--push")
    shop.write({"api/app.py": "print('another')\n"})
    changed = shop.build("api", "--push")["api"]
    assert changed["blobs"] == {"copied": 2, "mounted": 0, "present": 2}, "the config, the program"
    assert changed["bytes_sent"] < 10_000


def test_found_interpreter_is_used_again_until_its_file_changes(
    shop: Stack, tmp_path: Path
) -> None:
    shop.build("api")
    [record] = (shop.installation.home / "images").glob(".python-*")
    found, stamp = record.read_text().split("\n")
    link = tmp_path / "python"
    link.symlink_to(found)
    record.write_text(f"{link}\n{stamp}")

    def compiled_by(line: str) -> str:
        shop.write({"api/app.py": line})
        shop.build("api")
        logs = (shop.installation.home / "logs").rglob("*-image-*.log")
        last = max(logs, key=lambda log: log.stat().st_mtime_ns).read_text()
        return next(line.split()[1] for line in last.splitlines() if "compileall" in line)

    assert compiled_by("print(1)") == str(link)
    record.write_text(f"{link}\n0 0 0")
    assert compiled_by("print(2)") == found


def test_several_platforms_make_an_index(shop: Stack) -> None:
    platforms = ("--platform", "linux/amd64", "--platform", "linux/arm64")
    built = shop.build("api", "--push", *platforms)["api"]
    assert shop.server.whole("team/api", "latest") == built["digest"]
    index = shop.server.manifest("team/api", "latest")
    assert index is not None
    found = {m["platform"]["architecture"]: m["digest"] for m in index["manifests"]}
    machines = {"amd64": b"\x3e", "arm64": b"\xb7"}  # e_machine in the header of ELF
    for architecture, digest in found.items():
        assert shop.config("api", digest)["architecture"] == architecture
        archive = shop.archives("api", digest)[0]
        compiled = next(m for m in archive if m.name.endswith(".so"))
        content = archive.extractfile(compiled)
        assert content is not None
        assert content.read(19)[18:19] == machines[architecture]


def test_package_is_installed_with_its_scripts(stack: Stack) -> None:
    project = (
        '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\n'
        'dependencies = ["six==1.17.0"]\n[project.scripts]\nshop = "shop:main"\n'
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    )
    stack.write(
        {
            "api/pyproject.toml": project,
            "api/shop.py": "def main(): print('sold')\n",
            "lapwing.yaml": stack_file(stack.server, command="shop"),
        }
    )
    digest = stack.build("--push")["api"]["digest"]
    dependencies, program = map(names_of, stack.layers("api", digest))
    assert f"{PACKAGES}/six.py" in dependencies
    assert "opt/venv/bin/shop" in program
    assert f"{PACKAGES}/shop.py" in program
    assert "opt/venv/bin/python" not in program


def test_uncommitted_changes_get_no_tag_of_a_commit(shop: Stack) -> None:
    (shop.installation.folder / "api" / "app.py").write_text("print('not committed')\n")
    message = shop.fail("api", "--push")
    assert "api has uncommitted changes" in message
    assert "git commit" in message
    built = shop.build("api", "--push", "--tag", "try")["api"]
    assert built["pushed"] == ["try"]
    assert built["revision"].endswith("-dirty")


def test_package_without_wheel_is_named_with_the_way_out(shop: Stack) -> None:
    shop.write({"api/requirements.txt": "mysqlclient==2.2.4\n"})
    message = shop.fail("api")
    assert (
        f"api: mysqlclient has no wheel for x86_64-manylinux_2_36 and Python {VERSION}" in message
    )
    assert "lapwing image dockerfile api" in message


def test_base_for_another_platform_lists_the_available_ones(shop: Stack) -> None:
    message = shop.fail("api", "--platform", "linux/s390x")
    assert "is not available for linux/s390x" in message
    assert "Available platforms: linux/amd64, linux/arm64." in message


def test_base_with_another_python_is_refused(shop: Stack) -> None:
    shop.write({"api/.python-version": "3.9\n"})
    message = shop.fail("api")
    assert (
        f"The base image has Python {PYTHON['PYTHON_VERSION']}; the source requires 3.9." in message
    )


def test_missing_base_image_is_an_error(shop: Stack) -> None:
    build = f'{{path: ./api, base: "{shop.server.host}/library/nothing:1"}}'
    shop.write({"lapwing.yaml": stack_file(shop.server, build=build)})
    assert "library/nothing:1 does not exist" in shop.fail("api")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(gzip.compress(bytes(10240)), "Blob sha256:"), (b"no gzip", "A layer cannot be read")],
    ids=["empty archive", "no gzip"],
)
def test_damaged_layer_is_refused_before_any_tag(shop: Stack, content: bytes, reason: str) -> None:
    shop.build("api")
    layer = next(shop.installation.settings.images.glob("app-*/layer.tar.gz"))
    layer.chmod(0o600)
    layer.write_bytes(content)
    message = shop.fail("api", "--push", "--tag", "damaged")
    assert reason in message
    assert shop.server.manifest("team/api", "damaged") is None


def test_tracked_file_with_secrets_is_reported(shop: Stack) -> None:
    web = "  web: {build: ./api, static: dist, route: /pages}\n"
    files = dict.fromkeys(("api/.env.staging", "api/.env.example", "api/dist/id_rsa"), "KEY=1\n")
    files["api/dist/index.html"] = ""
    shop.write({**files, "lapwing.yaml": stack_file(shop.server) + web})
    done = shop.installation.run("image", "build")
    reported = [line for line in done.stderr.splitlines() if "is in git" in line]
    text = "is in git, so the image contains it"
    assert reported == [
        f"api: .env.staging {text}",
        f"api: dist/id_rsa {text}",
        f"web: dist/id_rsa {text}",
    ]


def test_lock_file_keeps_the_base_after_its_tag_moved(shop: Stack, tmp_path: Path) -> None:
    name = f"library/moved-{tmp_path.name}"
    old = push_base(shop.server, name, "slim", PYTHON, "amd64")
    build = f'{{path: ./api, base: "{shop.server.host}/{name}:slim"}}'
    shop.write({"lapwing.yaml": stack_file(shop.server, build=build)})
    pinned = shop.installation.json("image", "pin")
    assert [image["digest"] for image in pinned["images"]] == [old["digest"]]
    shop.write({})
    new = push_base(shop.server, name, "slim", PYTHON, "amd64")
    assert shop.build("api")["api"]["base_digest"] == old["digest"]
    shop.installation.run("image", "pin")
    assert shop.build("api")["api"]["base_digest"] == new["digest"]


@pytest.mark.parametrize("service", ["build: {path: ./api, base: BASE}", "dockerfile: Dockerfile"])
def test_pin_reads_the_lock_file_before_the_registry(shop: Stack, service: str) -> None:
    text = "stack: shop\nservices:\n  api: {command: serve, route: /, SERVICE}\n"
    text += "environments:\n  production: {target: kubernetes}\n"
    shop.write(
        {
            "lapwing.yaml": text.replace("SERVICE", service).replace("BASE", "127.0.0.1:1/base"),
            "lapwing.lock": "not a lock file",
            "Dockerfile": "FROM scratch\n",
        }
    )
    done = shop.installation.call("image", "pin")
    assert "is not a valid lock file" in done.stderr
    assert (shop.installation.folder / "lapwing.lock").read_text() == "not a lock file"


def test_archive_is_a_complete_oci_layout(shop: Stack, tmp_path: Path) -> None:
    import hashlib
    import json

    built = shop.build("api", "-o", str(tmp_path / "images.tar"), "--tag", "1")["api"]
    with tarfile.open(tmp_path / "images.tar") as archive:
        content = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    blobs = {name: data for name, data in content.items() if name.startswith("blobs/")}
    for name, data in blobs.items():
        assert hashlib.sha256(data).hexdigest() == name.rpartition("/")[2]
    entry = json.loads(content["index.json"])["manifests"][0]
    assert entry["digest"] == built["digest"]
    manifest = json.loads(blobs["blobs/sha256/" + entry["digest"].partition(":")[2]])
    for blob in [manifest["config"], *manifest["layers"]]:
        assert "blobs/" + blob["digest"].replace(":", "/") in blobs
    docker = json.loads(content["manifest.json"])[0]
    assert docker["RepoTags"] == [f"{shop.server.host}/team/api:1"]
    assert set(docker["Layers"]) <= set(blobs)


def test_node_image_has_production_packages_of_its_platform(stack: Stack) -> None:
    require("npm")
    package = (
        '{"name": "n", "version": "1.0.0", "scripts": {"build": "echo made > made.txt"},'
        ' "dependencies": {"is-odd": "3.0.1"}, "devDependencies": {"is-even": "1.0.0"},'
        ' "optionalDependencies": {"@esbuild/linux-x64": "0.24.0", "@esbuild/linux-arm64":'
        ' "0.24.0"}}'
    )
    files = {"package.json": package, "server.js": "0", ".gitignore": "node_modules\n"}
    service = f"build: {{path: ., base: '{stack.server.host}/library/node:22-slim'}}"
    stack.write(
        {
            **files,
            "lapwing.yaml": f"stack: n\nregistry: {stack.server.host}/team\nservices:\n"
            f"  web: {{{service}, command: node server.js, route: /}}\n",
        }
    )
    subprocess.run(
        ["npm", "install", "--silent", "--package-lock-only"],
        cwd=stack.installation.folder,
        check=True,
        capture_output=True,
    )
    stack.write({})
    digest = stack.build("--push", "--platform", "linux/arm64")["web"]["digest"]
    modules, program = map(names_of, stack.layers("web", digest))
    assert "app/node_modules/is-odd/index.js" in modules
    assert "app/node_modules/is-even" not in modules
    assert "app/node_modules/@esbuild/linux-arm64" in modules
    assert "app/node_modules/@esbuild/linux-x64" not in modules
    assert {"app/server.js", "app/made.txt"} <= set(program)
    assert not any(name.startswith("app/node_modules") for name in program)
    assert env_of(stack.config("web", digest))["NODE_ENV"] == "production"


def test_static_image_needs_no_base(stack: Stack) -> None:
    stack.write(
        {
            "web/dist/index.html": "<p>hello</p>",
            "lapwing.yaml": f"stack: s\nregistry: {stack.server.host}/team\nservices:\n"
            "  web: {build: ./web, static: dist, route: /}\n",
        }
    )
    built = stack.build("--push", "--platform", "linux/arm64")["web"]
    assert built["base"] == "scratch"
    for platform in built["platforms"]:
        server, files = stack.layers("web", platform["digest"])
        caddy = next(m for m in server if m.name == "usr/bin/caddy")
        assert caddy.mode & stat.S_IXOTH
        assert "tmp" in names_of(server)
        assert {"srv/index.html", "etc/caddy/config.json"} <= set(names_of(files))


def test_layers_that_were_used_last_stay(shop: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        shop.write({"api/app.py": f"print({number})\n"})
        shop.build("api")
    settings = shop.installation.settings
    program = max(settings.images.glob("app-*"), key=lambda path: path.stat().st_mtime)
    monkeypatch.setattr(layer, "KEPT_BYTES", layer_bytes(program))
    layer.remove_old(settings)
    assert [path.name for path in settings.images.glob("[!.]*")] == [program.name]


def layer_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_read_only_registry_is_named(shop: Stack) -> None:
    with proxy(shop.server.host) as front:
        front.fail("answer", "POST", "/blobs/uploads/", status=405, times=9)
        name = f"{front.host}/readonly"
        message = shop.fail("api", "--push", "--registry", name)
    assert f"{name}/api is read-only: {front.host} does not accept uploads (405)." in message


def test_base_that_differs_from_its_digest_is_refused(shop: Stack) -> None:
    with proxy(shop.server.host) as front:
        front.fail("answer", "GET", "/blobs/sha256", status=200, body=b"{}")
        build = f'{{path: ./api, base: "{front.host}/library/python:{VERSION}-slim"}}'
        shop.write({"lapwing.yaml": stack_file(shop.server, build=build)})
        message = shop.fail("api")
    assert "Blob sha256:" in message


@pytest.mark.parametrize("change", [lambda data: data[:-9], lambda data: b"x" * len(data), None])
def test_damaged_layer_of_the_cache_is_named(
    shop: Stack, change: Callable[[bytes], bytes] | None
) -> None:
    shop.build("api")
    files = [*(shop.installation.home / "images").glob("*/layer.tar.gz")]
    assert files
    for file in files:
        if change is None:
            file.unlink()
        else:
            file.write_bytes(change(file.read_bytes()))
    shown = shop.installation.run("image", "build", "api", "--push", status=1).stderr
    named = [f"{file} is damaged or incomplete: remove {file.parent} and run" for file in files]
    assert any(text in shown for text in named), shown
    assert "Traceback" not in shown
    assert "proxy" not in shown
    for file in files:
        shutil.rmtree(file.parent)
    assert shop.build("api", "--push")["api"]["pushed"]


def test_pin_writes_the_digests_of_all_images_of_other_publishers(
    shop: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker Hub is a real registry with copies of these names."""
    cluster = "\n".join(
        [
            "resources: {db: {kind: mysql}, cache: {kind: redis, version: '8'}}",
            "environments:",
            "  production: {target: kubernetes, backup: {to: 'pvc://b'}, rollouts: true}",
            "  staging: {target: kubernetes, resources: {cache: {version: '7'}}}",
        ]
    )
    shop.write({"lapwing.yaml": stack_file(shop.server) + cluster + "\n"})
    names = [
        "curlimages/curl:8.16.0", "envoyproxy/envoy:distroless-v1.36.2", "alpine/openssl:3.5.0",
        "library/mysql:8.4", "library/redis:8", "library/redis:7", "rclone/rclone:1.75.1",
    ]  # fmt: skip
    pushed = {}
    for name in names:
        repository, _, tag = name.partition(":")
        pushed[f"docker.io/{name}"] = push_base(shop.server, repository, tag, {}, "amd64")["digest"]
    monkeypatch.setattr("lapwing.stack.image.HUB_API", shop.server.host)
    loaded = load(shop.installation.folder / "lapwing.yaml", "production")
    found = pin_images(loaded, shop.installation.settings)
    base = f"{shop.server.host}/library/python:{VERSION}-slim"
    assert found.keys() == {base, *pushed}
    assert {name: digest for name, digest in found.items() if name != base} == pushed
    assert read_lock(loaded.folder) == found
    assert unpinned(loaded, found) == []
