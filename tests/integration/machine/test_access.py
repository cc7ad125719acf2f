"""`access`: whose requests a service gets, with the real agent and Envoy."""

from __future__ import annotations

import pytest

from lapwing.desired.secrets import SecretStore

from .conftest import Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("access")]


def replicas(yard: Yard) -> list[int]:
    """The process IDs of the active replicas."""
    return [r.pid for g in yard.memory().generations if g.role == "active" for r in g.replicas]


def test_other_clients_are_refused_without_a_restart(yard: Yard) -> None:
    before = replicas(yard)
    limited = "environments: {local: {access: {allow: [192.0.2.0/24]}}}"
    yard.stack(more=limited, smoke="smoke: [{get: /}]")
    yard.where.run("deploy")
    assert replicas(yard) == before
    assert yard.get().status_code == 403
    assert "limited by `access`" in yard.where.run("verify").stdout
    yard.write("second")
    yard.where.run("deploy", "--hold")
    preview = f"preview.{yard.name}.localhost"
    assert yard.get(host=preview).text == "second"
    yard.where.run("promote")
    assert yard.get().status_code == 403
    named = limited.replace("192.0.2.0", "127.0.0.0").replace("access", "headers: {x-a: b}, access")
    yard.stack(more=named)
    assert "is paused" in yard.where.run("deploy", "--hold").stderr
    assert yard.get().status_code == 403
    assert yard.get(host=preview).headers["x-a"] == "b"
    yard.where.run("promote")
    assert (yard.get().text, yard.get().headers["x-a"]) == ("second", "b")


def set_users(yard: Yard, text: str) -> None:
    SecretStore(yard.where.settings.secrets).set(yard.name, "local", "USERS", text)


def test_users_log_in_without_a_restart(yard: Yard) -> None:
    before = replicas(yard)
    yard.stack(more="environments: {local: {access: {basic_auth: USERS}}}")
    assert "one `name:password` per line" in yard.where.run("deploy", status=1).stderr
    set_users(yard, "ada:$2y$05$x")
    refused = yard.where.run("deploy", status=1).stderr
    assert "line 1 has a hash that Envoy does not support" in refused
    assert yard.get().status_code == 200

    set_users(yard, "ada:first")
    yard.where.run("deploy")
    assert replicas(yard) == before
    assert yard.get().status_code == yard.get(login=("ada", "second")).status_code == 401
    assert yard.get(login=("ada", "first")).status_code == 200
    assert "limited by `access`" in yard.where.run("verify").stdout

    set_users(yard, "ada:second\nbob:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=")
    yard.where.run("deploy")
    assert yard.get(login=("ada", "first")).status_code == 401
    for login in (("ada", "second"), ("bob", "")):
        assert yard.get(login=login).status_code == 200
    yard.where.run("agent", "stop")
    yard.where.run("agent", "start")
    assert yard.get(login=("ada", "second")).status_code == 200
    public = [p for p in yard.where.home.rglob("*") if p.is_file() and p.stat().st_mode & 0o077]
    assert [p for p in public if b"{SHA}" in p.read_bytes()] == []

    assert (
        "cannot be removed" in yard.where.run("secret", "remove", "USERS", "--yes", status=1).stderr
    )
    assert yard.get(login=("ada", "second")).status_code == 200
    SecretStore(yard.where.settings.secrets).remove(yard.name, "local", "USERS")
    assert "Clients cannot log in" in yard.where.run("status").stdout
    assert "FAILED  users of `access`" in yard.where.run("verify", status=1).stdout

    set_users(yard, "ada:third")
    yard.where.run("maintenance", "on")
    yard.where.run("maintenance", "off")
    assert yard.get(login=("ada", "third")).status_code == 200
