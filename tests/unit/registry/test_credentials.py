"""Docker's config.json: where a login is found, and that no error shows it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from lapwing.errors import RegistryLoginError
from lapwing.registry import credentials
from lapwing.registry.credentials import Credentials, Login
from lapwing.settings import Settings
from lapwing.system.registry_variable import registry_variable

AUTH = base64.b64encode(b"me:pass:word").decode()


async def find(folder: Path, config: Any, host: str, **environ: str) -> Login | None:
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text)
    settings = Settings(home=folder, environ={"DOCKER_CONFIG": str(folder), **environ})
    return await Credentials(settings).login(host)


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("r.example:5000", "r.example:5000"),
        ("https://r.example", "r.example"),
        ("http://r.example/v2/", "r.example"),
        ("https://index.docker.io/v1/", "registry-1.docker.io"),
        ("docker.io", "registry-1.docker.io"),
    ],
)
async def test_auths_key_formats(tmp_path: Path, key: str, host: str) -> None:
    found = await find(tmp_path, {"auths": {key: {"auth": AUTH}}}, host)
    assert found == Login("me", "pass:word")


@pytest.mark.parametrize(
    ("entry", "login"),
    [
        ({"username": "me", "password": "x"}, Login("me", "x")),
        ({"identitytoken": "t", "auth": AUTH}, Login(identity="t")),
        ({}, None),
    ],
)
async def test_auths_entry_formats(tmp_path: Path, entry: Any, login: Login | None) -> None:
    assert await find(tmp_path, {"auths": {"r.example": entry}}, "r.example") == login


async def test_login_of_another_port_is_not_used(tmp_path: Path) -> None:
    config = {"auths": {"r.example:1": {"auth": AUTH}}}
    assert await find(tmp_path, config, "r.example:2") is None


async def test_environment_overrides_config_file(tmp_path: Path) -> None:
    config = {"auths": {"r.example": {"auth": AUTH}}}
    found = await find(tmp_path, config, "r.example", LAPWING_REGISTRY_R_EXAMPLE_TOKEN="t")
    assert found == Login("lapwing", "t")


async def test_missing_config_file(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, environ={"DOCKER_CONFIG": str(tmp_path / "none")})
    assert await Credentials(settings).login("r.example") is None


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not valid JSON"),
        ({"auths": {"r.example": {"auth": "c2VjcmV0"}}}, "is invalid"),
        ({"auths": {"r.example": {"auth": "s3cret!"}}}, "is invalid"),
        ({"credsStore": "../../bin/sh"}, "names an invalid credential helper"),
        ({"credsStore": "not-there"}, "Cannot start docker-credential-not-there"),
    ],
)
async def test_error_for_invalid_config_hides_secret(
    tmp_path: Path, config: Any, words: str
) -> None:
    with pytest.raises(RegistryLoginError) as invalid:
        await find(tmp_path, config, "r.example", PATH="/nowhere")
    assert words in invalid.value.message
    assert "s3cret" not in str(invalid.value)
    assert "secret" not in invalid.value.message.replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("script", "login"),
    [
        ('echo \'{"Username": "me", "Secret": "x"}\'', Login("me", "x")),
        ('echo \'{"Username": "<token>", "Secret": "x"}\'', Login(identity="x")),
        ("echo credentials not found in native keychain; exit 1", None),
        ("echo top-s3cret; exit 3", "failed for r.example (exit status 3)"),
        ("echo top-s3cret", "printed an invalid login"),
    ],
)
async def test_credential_helper(tmp_path: Path, script: str, login: Login | str | None) -> None:
    helper = tmp_path / "docker-credential-x"
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\n{script}\n")
    helper.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    config = {"credHelpers": {"r.example": "x"}}
    if not isinstance(login, str):
        assert await find(tmp_path, config, "r.example", **environ) == login
        return
    with pytest.raises(RegistryLoginError) as failed:
        await find(tmp_path, config, "r.example", **environ)
    assert login in failed.value.message
    assert "s3cret" not in str(failed.value)


async def test_credential_helper_that_waits_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "HELPER_TIMEOUT_S", 0.1)
    helper = tmp_path / "docker-credential-x"
    helper.write_text("#!/bin/sh\nexec sleep 100\n")
    helper.chmod(0o755)
    with pytest.raises(RegistryLoginError) as failed:
        await find(tmp_path, {"credsStore": "x"}, "r.example", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert failed.value.message == "docker-credential-x timed out after 0 s."


@pytest.mark.parametrize("name", ["DOCKER_IO", "INDEX_DOCKER_IO", "REGISTRY_1_DOCKER_IO"])
async def test_token_of_docker_hub_in_environment(tmp_path: Path, name: str) -> None:
    variables = {f"LAPWING_REGISTRY_{name}_TOKEN": "t", f"LAPWING_REGISTRY_{name}_USER": "me"}
    assert await find(tmp_path, {}, "registry-1.docker.io", **variables) == Login("me", "t")


def auth(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:x".encode()).decode()}


@pytest.mark.parametrize(
    ("host", "repository", "user"),
    [
        ("r.example", "team/app", "app"),
        ("r.example", "team/other", "team"),
        ("r.example", "team/app/part", "app"),
        ("r.example", "elsewhere/app", "all"),
        ("r.example", "team-two/app", "all"),
        ("registry-1.docker.io", "library/redis", "hub"),
        ("registry-1.docker.io", "acme/app", "acme"),
        ("other.example", "team/app", None),
    ],
)
async def test_longest_key_of_podman_file_is_used(
    tmp_path: Path, host: str, repository: str, user: str | None
) -> None:
    auths = {
        "r.example": auth("all"),
        "r.example/team": auth("team"),
        "r.example/team/app": auth("app"),
        "docker.io": auth("hub"),
        "docker.io/acme": auth("acme"),
    }
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": auths}))
    settings = Settings(home=tmp_path, environ={"REGISTRY_AUTH_FILE": str(file)})
    found = await Credentials(settings).login(host, repository)
    assert found == (Login(user, "x") if user else None)


@pytest.mark.parametrize(
    ("files", "user"),
    [
        (("named", "docker", "runtime", "config"), "named"),
        (("docker", "runtime", "config"), "docker"),
        (("runtime", "config"), "runtime"),
        (("config",), "config"),
        ((), None),
    ],
)
async def test_files_of_logins_are_searched_in_turn(
    tmp_path: Path, files: tuple[str, ...], user: str | None
) -> None:
    paths = {
        "named": tmp_path / "auth.json",
        "docker": tmp_path / ".docker" / "config.json",
        "runtime": tmp_path / "run" / "containers" / "auth.json",
        "config": tmp_path / ".config" / "containers" / "auth.json",
    }
    for name, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        registry = "r.example" if name in files else "other.example"
        path.write_text(json.dumps({"auths": {registry: auth(name)}}))
    environ = {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "REGISTRY_AUTH_FILE": str(paths["named"]),
    }
    found = await Credentials(Settings(home=tmp_path, environ=environ)).login("r.example")
    assert found == (Login(user, "x") if user else None)


def test_repr_of_login_hides_password() -> None:
    assert "hidden" not in repr(Login("me", "hidden", "hidden"))


@pytest.mark.parametrize(
    ("host", "token", "user"),
    [
        ("europe-west1-docker.pkg.dev", "ya29.c.token", "oauth2accesstoken"),
        ("europe-docker.pkg.dev", '\n{"type": "service_account"}\n', "_json_key"),
        ("eu.gcr.io", '{"type": "service_account"}', "_json_key"),
        ("eu.gcr.io", "eyJ0eXBlIjogInNlcnZp\nY2VfYWNjb3VudCJ9\n", "_json_key_base64"),
        ("eu.gcr.io", "eyJhbGciOiAiUlMyNTYifQ.e30.c2ln", "oauth2accesstoken"),
        ("registry.example.com", "t", "lapwing"),
        ("my-docker.pkg.dev.example.com", "t", "lapwing"),
    ],
)
async def test_user_of_a_token_in_environment(
    tmp_path: Path, host: str, token: str, user: str
) -> None:
    """Artifact Registry accepts only the user of the kind of token."""
    variable = registry_variable(host)
    environ = {f"{variable}_TOKEN": token, f"{variable}_USER": ""}
    assert await find(tmp_path, {}, host, **environ) == Login(user, token)
    environ[f"{variable}_USER"] = "robot"
    assert await find(tmp_path, {}, host, **environ) == Login("robot", token)
