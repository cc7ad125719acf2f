"""The loader refuses invalid files with a position, and never fails otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lapwing.errors import StackFileError, UnknownNameError, UsageError
from lapwing.stack.load import FILE, StackFile, environments, find, load
from lapwing.stack.source import scalar

GOOD = "stack: shop\nservices:\n  api: {build: ., command: run, route: /}\n"


def refused(path: Path) -> StackFileError:
    """Return the error that loading a file raises."""
    with pytest.raises(StackFileError) as caught:
        load(path)
    with pytest.raises(StackFileError):
        _ = StackFile(path).stack
    return caught.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE


def test_missing_file_is_refused(path: Path) -> None:
    assert refused(path).message == "The file does not exist."


def test_folder_is_refused(path: Path) -> None:
    path.mkdir()
    assert "regular file" in refused(path).message


def test_pipe_without_writer_is_refused(path: Path) -> None:
    os.mkfifo(path)
    assert "regular file" in refused(path).message


def test_link_to_itself_is_refused(path: Path) -> None:
    path.symlink_to(path)
    assert "Cannot read the file" in refused(path).message


def test_large_file_is_refused_without_reading(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(50 * 1024 * 1024)
    assert "50 MiB" in refused(path).message


@pytest.mark.parametrize("size", [262_144 - len("note"), 262_144])
def test_annotations_that_kubernetes_does_not_accept_are_refused(path: Path, size: int) -> None:
    pods = f"{{annotations: {{note: {'x' * size}}}}}"
    path.write_text(f"{GOOD}environments: {{shop: {{target: kubernetes, pods: {pods}}}}}\n")
    if size < 262_144:
        load(path, "shop")
    else:
        with pytest.raises(StackFileError, match="256 KiB that Kubernetes accepts"):
            load(path, "shop")


def test_binary_file_is_refused(path: Path) -> None:
    path.write_bytes(Path(sys.executable).read_bytes()[:5000])
    assert "binary" in refused(path).message


def test_nul_character_in_text_is_refused(path: Path) -> None:
    path.write_text(GOOD + 'x-a: "a\\0b"\n')
    assert "NUL" in refused(path).message


def test_other_encoding_is_refused_with_position(path: Path) -> None:
    path.write_bytes(b"stack: shop\n# caf\xe9\n")
    error = refused(path)
    assert "not UTF-8" in error.message
    assert error.where is not None
    assert (error.where.line, error.where.column) == (2, 6)


@pytest.mark.parametrize("text", ["[" * 500_000, "{a: " * 200_000, "- " * 400_000, "? " * 400_000])
def test_deep_nesting_is_refused_before_composing(path: Path, text: str) -> None:
    path.write_text(text)
    assert "nested" in refused(path).message


def test_windows_line_endings_are_accepted(path: Path) -> None:
    path.write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert load(path).stack.stack == "shop"


def test_unknown_environment_suggests_a_name(path: Path) -> None:
    path.write_text(GOOD + "environments:\n  staging: {}\n")
    with pytest.raises(UnknownNameError, match="no environment `stagign`") as caught:
        load(path, "stagign")
    assert caught.value.hint == "Did you mean `staging`? Known environments: local, staging."


@pytest.mark.parametrize(
    ("live", "problem"),
    [
        ("services: {a: {}}", "no service `a`"),
        ("services: {api: {replicas: none}}", "In `live`: "),
        ("host: me@example.com, target: kubernetes", "`host` is only for"),
        ("targt: machine", "Unknown key `targt`"),
    ],
)
def test_errors_of_other_environments_are_ignored(path: Path, live: str, problem: str) -> None:
    text = GOOD + f"environments:\n  staging: {{}}\n  live: {{{live}}}\n"
    path.write_text(text)
    (path.parent / "requirements.txt").touch()
    assert load(path, "staging").environment == "staging"
    [staging] = environments(path, "staging")
    assert staging.stack == load(path, "staging").stack
    for find_problems in (lambda: load(path, "live"), lambda: environments(path)):
        with pytest.raises(StackFileError, match=problem) as caught:
            find_problems()
        assert {p.where.line for p in caught.value.problems} == {len(text.splitlines())}


def test_only_errors_of_the_named_environment_are_reported(path: Path) -> None:
    path.write_text(GOOD + "environments:\n  staging: {targt: machine}\n  live: 3\n")
    for environment, line in (("staging", 5), ("live", 6)):
        with pytest.raises(StackFileError) as caught:
            load(path, environment)
        assert [p.where.line for p in caught.value.problems] == [line]


def test_problem_of_the_stack_stops_every_command(path: Path) -> None:
    path.write_text(GOOD.replace("route: /", "route: x") + "environments: {staging: {targt: 1}}\n")
    for environment in ("local", "staging"):
        with pytest.raises(StackFileError, match="route"):
            load(path, environment)


def test_file_is_found_from_a_subfolder(path: Path, tmp_path: Path) -> None:
    path.write_text(GOOD)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find(below) == path
    with pytest.raises(UsageError, match="not a folder"):
        find(tmp_path / "c")


@pytest.mark.parametrize("name", ["Bad Name", "12", "[shop]"])
def test_invalid_name_is_reported_with_its_position(name: str, path: Path) -> None:
    """Commands that read the name only report the same problem as those that read all."""
    path.write_text(f"# A comment.\n{GOOD.replace('shop', name)}")
    with pytest.raises(StackFileError) as full:
        load(path)
    with pytest.raises(StackFileError) as caught:
        _ = StackFile(path).stack
    assert caught.value.problems == full.value.problems
    [problem] = caught.value.problems
    assert "stack" in problem.message
    assert (problem.where.line, problem.where.column) == (2, 8)


def test_missing_name_is_reported(path: Path) -> None:
    path.write_text(GOOD.partition("\n")[2])
    with pytest.raises(StackFileError, match="The file has no `stack: NAME`"):
        _ = StackFile(path).stack


def test_no_stack_file_found(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No lapwing\.yaml found in"):
        find(tmp_path)


def test_name_of_stack_file_does_not_import_pydantic(path: Path) -> None:
    path.write_text(GOOD)
    program = (
        "import sys; from pathlib import Path; from lapwing.stack.load import StackFile; "
        f"print(StackFile(Path({str(path)!r})).stack, 'pydantic' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == ["shop", "False"], run.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [("8", 8), ("-3", -3), ("0.5", 0.5), ("true", True), ("null", None), ("~", None), ("", None),
     ("8.10", "8.10"), ("3.0", 3.0), ("007", "007"), ("1_000", "1_000"), ("1e3", "1e3"),
     ("0x10", "0x10"), ("yes", "yes"), ("off", "off"), ("1:30", "1:30"), (".5", ".5"),
     ("2026-01-01", "2026-01-01"), (".inf", ".inf"), ("-0", "-0"), ("9" * 30, "9" * 30)],
)  # fmt: skip
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = scalar(text, plain=True)
    assert found == value
    assert type(found) is type(value)
    assert scalar(text, plain=False) == text


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8),
    st.sampled_from(
        ["/", ".", "..", "/etc", "api", "10m", "1%", "512Mi", "web", "job", "\x7f", "\uffff"]
    ),
)  # fmt: skip
KEYS = st.sampled_from(
    ["stack", "services", "resources", "environments", "api", "db", "kind", "build", "route",
     "static", "command", "image", "health", "path", "replicas", "min", "max", "rollout", "smoke",
     "get", "run", "analysis", "window", "needs", "env", "secrets", "timeout", "target", "domain",
     "cloud", "local", "staging", "variable", "[key]", "", "<<"],
)  # fmt: skip
DATA = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=30,
)
FEW = settings(max_examples=150, suppress_health_check=list(HealthCheck))


def only_stack_file_errors(path: Path) -> None:
    """Load, and check the messages of a StackFileError; any other error fails the test."""
    try:
        load(path)
    except StackFileError as error:
        for problem in error.problems:
            assert problem.message.endswith("."), problem.message
            assert "Input should" not in problem.message, problem.message


@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
@FEW
def test_loader_handles_any_text(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8", newline="")
    only_stack_file_errors(tmp_path / FILE)


@given(data=st.binary(max_size=60))
@FEW
def test_loader_handles_any_bytes(data: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(data)
    only_stack_file_errors(tmp_path / FILE)


@given(data=st.fixed_dictionaries({
    "stack": st.just("shop"),
    "services": st.dictionaries(st.sampled_from(["api", "web", "x y", "Z"]), DATA, max_size=3),
}, optional={"resources": DATA, "environments": DATA}))  # fmt: skip
@FEW
def test_loader_handles_any_shape(data: object, tmp_path: Path) -> None:
    import json

    (tmp_path / FILE).write_text(json.dumps(data), encoding="utf-8")
    only_stack_file_errors(tmp_path / FILE)


OVERLAY = st.dictionaries(st.sampled_from(["api", "db", "x"]), DATA, max_size=2)


@given(services=OVERLAY, resources=OVERLAY)
@FEW
def test_loader_handles_any_overlay(services: object, resources: object, tmp_path: Path) -> None:
    import json

    overlay = json.dumps({"services": services, "resources": resources})
    text = f"{GOOD}resources:\n  db: {{kind: redis}}\nenvironments:\n  staging: {overlay}\n"
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    only_stack_file_errors(tmp_path / FILE)


def test_headers_above_the_limit_of_envoy_are_refused(path: Path) -> None:
    file = "stack: shop\nservices:\n  api:\n    build: .\n    command: run\n    route: /\n"
    file += '    headers: {X-A: "%s"}\n'
    path.write_text(file % ("%" * 8000))
    load(path)
    path.write_text(file % ("%" * 8200))
    with pytest.raises(StackFileError, match="have 16,435 bytes; the limit is 16,384"):
        load(path)


def test_offline_migration_is_refused_where_a_machine_pulls(path: Path) -> None:
    text = (
        "stack: shop\n"
        "registry: registry.example.com/shop\n"
        "services:\n"
        "  api: {build: ., command: run, route: /, needs: [db], migrate: {MIGRATE}}\n"
        "resources:\n"
        "  db: {kind: postgres}\n"
        "environments:\n"
        "  production: {desired: https://git.example.com/shop/desired.git}\n"
    )
    path.write_text(text.replace("MIGRATE", "run: migrate, mode: offline"))
    with pytest.raises(StackFileError) as caught:
        StackFile(path).load("production", folders=False)
    assert "`api` has an offline migration, which needs `--allow-downtime`" in str(caught.value)
    path.write_text(text.replace("MIGRATE", "run: migrate"))
    assert "api-migrate" in StackFile(path).load("production", folders=False).stack.services
