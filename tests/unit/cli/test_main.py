"""The command as a person calls it: helps, suggests, and never shows a traceback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lapwing.cli.main import VERBS
from lapwing.desired.secrets import SecretStore
from lapwing.errors import RequirementsError, SecretError, UsageError

LAPWING = Path(sys.executable).with_name("lapwing")


def call(*arguments: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Call the command in a folder, which is also its home."""
    variables = {"PATH": os.environ["PATH"], "LAPWING_HOME": str(folder / "home"), **environ}
    return subprocess.run(
        [str(LAPWING), *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, tmp_path: Path) -> None:
    done = call(verb, "--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: lapwing {verb}")
    assert "--help" in done.stdout
    assert not (tmp_path / "home").exists()


def test_help_lists_every_verb(tmp_path: Path) -> None:
    done = call("--help", folder=tmp_path)
    assert done.returncode == 0
    listed = [
        line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line
    ]
    assert listed == list(VERBS)


@pytest.mark.parametrize(
    ("arguments", "light"),
    [
        (["--help"], {"pydantic", "httpx", "rich", "yaml", "cryptography", "msgspec", "psutil"}),
        (["status", "--help"], {"pydantic", "httpx", "rich", "cryptography"}),
        (["history", "--help"], {"pydantic", "httpx", "rich", "cryptography"}),
        (["image", "copy", "--help"], {"asyncio", "h11", "msgspec", "rich", "yaml"}),
        (["release", "--help"], {"asyncio", "httpx", "msgspec", "pydantic", "rich", "yaml"}),
    ],
)
def test_help_starts_light(arguments: list[str], light: set[str], tmp_path: Path) -> None:
    done, loaded = modules_of(*arguments, folder=tmp_path)
    assert done.returncode == 0
    assert not light & loaded


def modules_of(*arguments: str, folder: Path) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Call the command as `call` does; return the names of the modules that it has loaded, too."""
    program = (
        "import sys; from lapwing.cli.main import run; status = run(sys.argv[1:])\n"
        "print(*sys.modules, file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    loaded = set(done.stderr.split())
    assert "click" in loaded
    return done, loaded


@pytest.mark.parametrize("arguments", [["copy", "{image}", "{image}"], ["tag", "{image}", "2"]])
def test_images_are_copied_and_tagged_without_heavy_modules(
    arguments: list[str], tmp_path: Path
) -> None:
    """The client of registries is loaded: the command ends where nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # Bound, not listening: nothing else gets the port.
        image = f"127.0.0.1:{unused.getsockname()[1]}/app:1"
        words = [word.format(image=image) for word in arguments]
        done, loaded = modules_of("image", *words, folder=tmp_path)
    assert done.returncode == 1
    assert "Cannot connect" in done.stderr
    assert "lapwing.registry.copy" in loaded
    heavy = {"cryptography", "email", "httpx", "pydantic", "rich", "yaml", "lapwing.stack.model"}
    assert not (heavy | {"encodings.idna", "platformdirs", "tempfile"}) & loaded


def test_httpx_does_not_import_its_own_command_line() -> None:
    program = "import sys, lapwing.cli.main, httpx; httpx.Client().close(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"pygments", "rich"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "status", "reads_stack"),
    [
        ("status", 1, False), ("history", 1, False), ("rollback", 1, False), ("promote", 1, False),
        ("abort", 1, False), ("down", 1, False), ("verify", 1, False), ("logs", 1, False),
        ("open", 1, False),
        ("deploy", 1, True), ("up", 1, True), ("check", 0, True), ("review", 0, True),
        ("image build", 1, True), ("design -o d.md", 0, True), ("diagram -o d.svg", 0, True),
        ("render -e kind -o o", 2, True),
    ],
)  # fmt: skip
def test_exit_status_tells_usage_from_failure(
    arguments: str, status: int, reads_stack: bool, tmp_path: Path
) -> None:
    """2 for a command or a stack file that is wrong, 1 for what is asked for and cannot be done."""
    words = arguments.split()
    file = tmp_path / "lapwing.yaml"
    file.write_text(
        "stack: shop\nservices: {api: {build: ., command: run, route: /}}\n"
        "environments: {kind: {target: kubernetes}}\n"
    )
    assert call(*words, "--no-such-option", folder=tmp_path).returncode == 2
    assert call(*words, folder=tmp_path).returncode == status
    if reads_stack:
        file.write_text("stack: shop\nservices: {api: {build: ., comand: run}}\n")
        assert call(*words, folder=tmp_path).returncode == 2
    file.unlink()
    assert call(*words, folder=tmp_path).returncode == 2


def test_several_problems_have_the_exit_status_of_one() -> None:
    """2 only if each of them is in a file."""
    file, secret = UsageError("The page cannot be read."), SecretError("A secret is not set.")
    assert RequirementsError([file, file]).exit_status == 2
    assert RequirementsError([file, secret]).exit_status == 1


@pytest.mark.parametrize("verb", ["status", "history", "rollback", "promote", "abort"])
def test_what_speaks_of_a_machine_does_not_read_the_whole_stack(verb: str, tmp_path: Path) -> None:
    """These are wanted in a hurry: whether an environment is on a cluster is asked of the file, not
    of its models."""
    stack = "stack: shop\nservices: {api: {build: ., command: run}}\nenvironments: {test: {}}\n"
    (tmp_path / "lapwing.yaml").write_text(stack)
    done, loaded = modules_of(verb, "-e", "test", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "has never been deployed" in done.stderr
    assert "pydantic" not in loaded


def test_value_of_a_secret_on_the_command_line_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "lapwing.yaml").write_text("stack: shop\n")
    done = call("secret", "set", "TOKEN=hunter2", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "hunter2" not in done.stderr
    assert "lapwing secret set TOKEN -e local`" in done.stderr


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("statsu", "Did you mean `lapwing status`?"),
        ("rolback", "Did you mean `lapwing rollback`?"),
        ("frobnicate", "There is no command 'frobnicate'."),
    ],
)
def test_a_verb_that_is_none(word: str, told: str, tmp_path: Path) -> None:
    done = call(word, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


WRONG = [
    ["status", "--output", "yaml"],
    ["status", "--nothing"],
    ["status"],
    ["up"],
    ["deploy"],
    ["promote"],
    ["abort"],
    ["rollback"],
    ["history"],
    ["logs"],
    ["down"],
    ["verify"],
    ["check"],
    ["secret", "list"],
    ["secret", "set", "KEY", "value"],
    ["-C", "/nonexistent", "status"],
    ["completion", "tcsh"],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_usage_is_status_2_and_words(arguments: list[str], tmp_path: Path) -> None:
    """In an empty folder nothing can be done; each verb says so, and starts nothing."""
    done = call(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home/agent").exists()


def test_errors_for_programs_are_json(tmp_path: Path) -> None:
    done = call("status", "--output", "json", folder=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "usage"
    (tmp_path / "lapwing.yaml").write_text("stack: shop\nservises: {}\n")
    done = call("check", "--output", "json", folder=tmp_path)
    assert done.returncode == 2
    places = [p["where"] for p in json.loads(done.stdout)["error"]["problems"]]
    assert any(place.endswith("lapwing.yaml:2:1") for place in places)


def test_a_wrong_setting_is_told(tmp_path: Path) -> None:
    done = call("status", folder=tmp_path, LAPWING_PORT="http")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: LAPWING_PORT is 'http'")


def test_an_encoding_that_lacks_a_letter(tmp_path: Path) -> None:
    (tmp_path / "lapwing.yaml").write_text("stack: shöp\n", encoding="utf-8")
    for form in ("json", "text"):
        done = call("check", "--output", form, folder=tmp_path, PYTHONIOENCODING="ascii")
        assert done.returncode == 2
        assert r"sh\xf6p" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_the_reader_leaves(tmp_path: Path) -> None:
    """`lapwing ... | head -1`: no traceback, no complaint of Python at its end."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [str(LAPWING), "completion", "bash"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "LAPWING_HOME": str(tmp_path / "home")},
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_answer_does_not_fit_on_the_disk(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [str(LAPWING), "completion", "bash"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "LAPWING_HOME": str(tmp_path / "home")},
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: The disk is full")
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("redirected", [">/dev/full", ">&-"])
def test_error_as_json_that_stdout_does_not_take(redirected: str, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$0" status --output json {redirected}', str(LAPWING)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "LAPWING_HOME": str(tmp_path / "home")},
        check=False,
    )
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.stderr.startswith("error: ") is (redirected == ">/dev/full")


def test_signal_after_the_end_changes_no_exit_status() -> None:
    """A Ctrl-C while Python exits would end a command that has succeeded by a signal."""
    script = (
        "import atexit, os, signal, sys; sys.argv = ['lapwing', '--version']\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "from lapwing.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_second_interrupt_while_the_first_is_reported() -> None:
    script = (
        "import os, signal, sys; sys.argv = ['lapwing', '--version']\n"
        "from lapwing.cli import main\n"
        "def interrupted(*_): os.kill(os.getpid(), signal.SIGINT)\n"
        "main.cli.make_context = main.Printer.say = interrupted\n"
        "main.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


def test_the_version(tmp_path: Path) -> None:
    from lapwing import __version__

    assert call("--version", folder=tmp_path).stdout == f"lapwing {__version__}\n"


def complete(folder: Path, *words: str, **environ: str) -> list[str]:
    """What a shell offers for the last word."""
    line, at = " ".join(["lapwing", *words]), str(len(words))
    variables = {"COMP_WORDS": line, "COMP_CWORD": at, "_LAPWING_COMPLETE": "bash_complete"}
    done = call(folder=folder, **variables, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.split()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["deploy", ""], ["api", "web"]),
        (["deploy", "api", ""], ["web"]),
        (["rollback", "w"], ["web"]),
        (["logs", ""], ["api", "web", "db"]),
        (["status", "-e", ""], ["local", "staging", "kind"]),
        (["render", "--environment", "k"], ["kind"]),
        (["cost", "-e", "s"], ["staging"]),
        (["secret", "set", ""], ["KEY", "TOKEN"]),
        (["secret", "remove", ""], []),
        (["rollback", "--to", ""], []),
    ],
)
def test_shell_completes_names(words: list[str], offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "lapwing.yaml").write_text(
        "stack: shop\n"
        "services:\n  api: {secrets: [TOKEN, {name: KEY, generate: 9}]}\n  web: {}\n"
        "resources: {db: {kind: redis}}\nenvironments: {staging: {}, kind: {}}\n"
    )
    assert complete(tmp_path, *words) == offered
    (tmp_path / "lapwing.yaml").write_text("- invalid\n")
    assert [n for n in complete(tmp_path, *words) if n != "local"] == []
    (tmp_path / "lapwing.yaml").unlink()
    assert complete(tmp_path, *words) == []


def test_shell_completes_stored_secrets(tmp_path: Path) -> None:
    (tmp_path / "lapwing.yaml").write_text("stack: shop\n")
    SecretStore(tmp_path / "home" / "secrets").set("shop", "local", "TOKEN", "value")
    assert complete(tmp_path, "secret", "remove", "") == ["TOKEN"]


def test_missing_option_is_named_with_its_value(tmp_path: Path) -> None:
    assert "Missing option '-o DIR'." in call("render", "-e", "kind", folder=tmp_path).stderr


@pytest.mark.parametrize("below", ["", "/home"])
@pytest.mark.parametrize(
    "arguments",
    ["status", "status --all", "agent status", "agent start", "secret list", "up", "history",
     "doctor --repair"],
)  # fmt: skip
def test_home_that_is_a_file_is_refused(tmp_path: Path, arguments: str, below: str) -> None:
    (tmp_path / "lapwing.yaml").write_text("stack: shop\n")
    (tmp_path / "file").touch()
    home = str(tmp_path / "file") + below
    done = call(*arguments.split(), folder=tmp_path, LAPWING_HOME=home)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"LAPWING_HOME is {home}, which is not a folder." in done.stderr
    assert "Set LAPWING_HOME to a new or empty folder." in done.stderr


@pytest.mark.parametrize("below", ["", "/home"])
def test_doctor_reports_a_home_that_is_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    home = str(tmp_path / "file") + below
    done = call("doctor", folder=tmp_path, LAPWING_HOME=home)
    assert (done.returncode, done.stderr) == (1, "")
    [row] = [line for line in done.stdout.splitlines() if "state folder" in line]
    assert row.startswith("FAILED")
    assert f"LAPWING_HOME is {home}, which is not a folder." in row
