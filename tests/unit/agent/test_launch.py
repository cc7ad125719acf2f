"""What a process is started with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lapwing.agent.launch import command, environ, prepare_home
from lapwing.agent.processes import Owner
from lapwing.build.release import Release
from tests.unit.agent.samples import service

OWNER = Owner("shop", "local", "api", "blue-7", 1)
HOME = Path("/home/of/replica")
RELEASE = Release(
    name="api-1",
    stack="shop",
    service="api",
    kind="process",
    revision="r1",
    built=0.0,
    path=("/layer/bin",),
    environment={"PYTHONPATH": "/layer/lib"},
)


def test_environment_of_the_agent_is_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "leak")
    found = environ(service("api-1"), RELEASE, OWNER, HOME, {}, 20001)
    assert "AWS_SECRET_ACCESS_KEY" not in found
    assert found["PATH"].startswith(f"/layer/bin{os.pathsep}")
    assert found["PYTHONPATH"] == "/layer/lib"
    assert (found["PORT"], found["HOST"]) == ("20001", "127.0.0.1")
    assert found["HOSTNAME"] == "127.0.0.1"
    told = {k: v for k, v in found.items() if k.startswith("LAPWING_")}
    assert told == {
        "LAPWING_STACK": "shop",
        "LAPWING_ENVIRONMENT": "local",
        "LAPWING_SERVICE": "api",
        "LAPWING_RELEASE": "api-1",
        "LAPWING_REVISION": "r1",
        "LAPWING_REPLICA": "blue-7.1",
    }


def test_process_has_a_home_of_its_own(tmp_path: Path) -> None:
    assert environ(service(), RELEASE, OWNER, HOME, {}, 20001)["HOME"] == str(HOME)
    job = prepare_home(tmp_path, Owner("shop", "local", "migrate", "job"), set())
    ended = prepare_home(tmp_path, Owner("shop", "local", "api", "green-6"), {("api", "green-6")})
    other = prepare_home(tmp_path, Owner("shop", "local", "api", "blue-7", 0), {("api", "blue-7")})
    (other / ".cache").mkdir()
    own = prepare_home(tmp_path, OWNER, {("api", "blue-7")})
    assert own.parent == other.parent == tmp_path / "api"
    assert (other / ".cache").is_dir()
    assert job.is_dir()
    assert not ended.exists()
    assert own.stat().st_mode & 0o777 == 0o700
    assert prepare_home(tmp_path, OWNER, set()) == own


def test_servers_get_the_loopback_address() -> None:
    found = environ(service(), RELEASE, OWNER, HOME, {}, 20001)
    bound = [v for v in found.values() if "20001" in v and ":" in v]
    assert bound == ["--bind 127.0.0.1:20001"]


def test_worker_has_no_port() -> None:
    found = environ(service(kind="worker", route=None), RELEASE, OWNER, HOME, {}, None)
    assert not {"PORT", "HOST", "GUNICORN_CMD_ARGS"} & set(found)


def test_secrets_override_env_of_the_stack_file() -> None:
    spec = service(env={"MODE": "x", "KEY": "plain", "LANG": "de_DE.UTF-8"})
    found = environ(spec, RELEASE, OWNER, HOME, {"KEY": "sealed", "DB_URL": "mongodb://a"}, 20001)
    assert (found["MODE"], found["LANG"]) == ("x", "de_DE.UTF-8")
    assert (found["KEY"], found["DB_URL"]) == ("sealed", "mongodb://a")


def test_owner_as_text() -> None:
    assert str(OWNER) == "shop/local/api/blue-7/1"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("printf %s $PORT", "20001"),
        ("echo 'two words'  \"$PORT\"", "two words 20001\n"),
        ("MODE=fast printenv MODE", "fast\n"),
        ("cd / && pwd", "/\n"),
        ("echo done; exit 0", "done\n"),
        ("echo one; echo two", "one\ntwo\n"),
        ("echo a | tr a b", "b\n"),
        ("(echo sub)", "sub\n"),
        ("if true; then echo yes; fi", "yes\n"),
        ("exec echo already", "already\n"),
        ("A='1 2' B=\"$PORT\" printenv A B", "1 2\n20001\n"),
        ("A=x;echo $A", "x\n"),
        ('echo "$(echo a; echo b)"', "a\nb\n"),
        ("echo `echo a` && echo b", "a\nb\n"),
        ("trap 'echo last' EXIT; echo first", "first\nlast\n"),
        ("for i in 1 2; do echo $i; done", "1\n2\n"),
        ("! false && echo yes", "yes\n"),
        ("{ echo a; echo b; }", "a\nb\n"),
        ("false || echo or", "or\n"),
        ("echo out 2>&1", "out\n"),
        ("echo a\necho b", "a\nb\n"),
        ("echo a; ", "a\n"),
        ('echo ${PORT:-1} "${HOST:-h}"', "20001 h\n"),
        ('echo it\\\'s; echo "a\\"b;c"', "it's\na\"b;c\n"),
        (">/dev/null echo a; echo b", "b\n"),
        ("export A=1 && printenv A", "1\n"),
        ("echo a; export B=1", "a\n"),
        ("echo a && echo b # a comment", "a\nb\n"),
        ("echo 'a;b && c|d'", "a;b && c|d\n"),
    ],
)
def test_command_is_expanded_by_a_shell(text: str, told: str) -> None:
    variables = {"PATH": os.defpath, "PORT": "20001"}
    done = subprocess.run(
        command(service(command=text)), capture_output=True, text=True, env=variables, check=True
    )
    assert (done.stdout, done.stderr) == (told, "")


@pytest.mark.parametrize(
    "text",
    [
        "sleep 60",
        "MODE=fast sleep 60",
        "exec sleep 60",
        "cd / && A='b c' sleep 60",
        "true; sleep 60 2>&1",
        "sleep $LONG",
    ],
)
def test_signals_reach_the_program_itself(text: str) -> None:
    """A simple command replaces its shell, so SIGTERM meets the program and nobody in between."""
    process = subprocess.Popen(command(service(command=text)), env={"LONG": "60"})
    try:
        name = Path(f"/proc/{process.pid}/comm")
        if not name.exists():
            pytest.skip("needs /proc")
        while name.read_text().strip() != "sleep":
            assert process.poll() is None
        process.terminate()
        assert process.wait(10) == -15
    finally:
        process.kill()
        process.wait()
