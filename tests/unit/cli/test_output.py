"""The printer: stdout is data, stderr is talk, and colour only where somebody sees it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing import errors
from lapwing.cli.output import Printer, describe
from lapwing.errors import BuildError, LapwingError, Location, Problem, StackFileError, UsageError


class Stream(io.StringIO):
    """A stream that may be a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def printer(*, terminal: bool = False, color: bool = True) -> tuple[Printer, Stream, Stream]:
    """A printer with its two streams."""
    out, err = Stream(terminal=terminal), Stream(terminal=terminal)
    return Printer(color=color, out=out, err=err), out, err


@pytest.mark.parametrize(
    ("terminal", "color", "painted"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_colour(terminal: bool, color: bool, painted: bool) -> None:
    made, out, err = printer(terminal=terminal, color=color)
    made.say("talk", style="green")
    made.data(made.paint("data", "red"))
    made.table(("NAME",), [("api",)])
    made.error(UsageError("wrong", hint="do this"))
    for stream in (out, err):
        assert ("\x1b[" in stream.getvalue()) is painted
    assert "error" in err.getvalue()


def test_data_and_talk_are_apart() -> None:
    made, out, err = printer()
    made.data("the answer")
    made.json({"ö": [1]})
    made.say("talk")
    made.progress("a step")
    made.error(LapwingError("broken", hint="mend it", detail="line 1\nline 2\n"))
    assert out.getvalue() == 'the answer\n{\n  "ö": [\n    1\n  ]\n}\n'
    assert err.getvalue() == ("talk\na step\nerror: broken\n    line 1\n    line 2\n  mend it\n")


def test_progress_is_plain_lines_where_nobody_looks() -> None:
    made, out, err = printer()
    with made.working("building"):
        made.progress("api: [bold]installing[/bold]")
    assert (out.getvalue(), err.getvalue()) == ("", "api: [bold]installing[/bold]\n")


def test_progress_is_plain_lines_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runners of Gitea give a job a terminal."""
    monkeypatch.setenv("CI", "true")
    made, _, err = printer(terminal=True, color=False)
    with made.working("building"):
        made.progress("api: installing")
    assert err.getvalue() == "api: installing\n"


def test_progress_on_a_terminal_shows_text_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    made, out, err = printer(terminal=True)
    with made.working("building"):
        made.progress("api: [bold]installing")
    made.say("done")
    assert out.getvalue() == ""
    assert err.getvalue().endswith("done\n")


def test_a_table() -> None:
    made, out, _ = printer()
    made.table(("NAME", "PHASE"), [("api", "running"), ("a-long-name", "-")])
    assert out.getvalue() == "NAME         PHASE\napi          running\na-long-name  -\n"


def test_a_table_without_rows() -> None:
    made, out, _ = printer()
    made.table(("NAME", "PHASE"), [])
    assert out.getvalue() == "NAME  PHASE\n"


def test_every_problem_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "lapwing.yaml"
    file.write_text("stack: shop\nservises: {}\n")
    problems = [
        Problem("`servises` is unknown.", Location(file, 2, 1), "Did you mean `services`?"),
        Problem("There is no service.", Location(tmp_path / "gone.yaml", 9, 9)),
    ]
    made, out, err = printer()
    made.error(StackFileError(problems))
    assert out.getvalue() == ""
    assert err.getvalue() == (
        f"{file}:2:1: error: `servises` is unknown.\n"
        "    servises: {}\n    ^\n  Did you mean `services`?\n"
        f"{tmp_path}/gone.yaml:9:9: error: There is no service.\n"
        "2 problems in lapwing.yaml, gone.yaml.\n"
    )


def test_where_the_whole_log_is() -> None:
    made, _, err = printer()
    made.error(BuildError("npm failed.", log=Path("/logs/a.log"), detail="x", hint="y"))
    assert err.getvalue() == "error: npm failed.\n    x\n  full log: /logs/a.log\n  y\n"


def test_the_shape_of_an_error_for_programs() -> None:
    problem = Problem("bad", Location(Path("a.yaml"), 1, 2), "hint")
    found = describe(StackFileError([problem]))
    assert json.loads(json.dumps(found)) == {
        "error": {
            "code": "stack-file",
            "message": "bad",
            "hint": "hint",
            "where": "a.yaml:1:2",
            "detail": None,
            "problems": [{"message": "bad", "where": "a.yaml:1:2", "hint": "hint"}],
        }
    }
    plain = describe(errors.ConflictError("c"))["error"]
    assert (plain["code"], plain["where"], plain["problems"]) == ("conflict", None, [])


def tree(root: type[LapwingError] = LapwingError) -> Iterator[type[LapwingError]]:
    """Every error there is."""
    for kind in root.__subclasses__():
        yield kind
        yield from tree(kind)


def test_the_error_tree() -> None:
    """Each error has a code of its own, a sentence on what it is, and a status that is promised."""
    found = [k for k in tree() if k.__module__ == "lapwing.errors"]
    assert len(found) >= 15
    codes = [k.code for k in found]
    assert len(set(codes)) == len(codes)
    assert "error" not in codes
    assert all(k.__doc__ and k.exit_status in (1, 2) for k in found)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (Location(Path("a")), "a"),
        (Location(Path("a"), 3), "a:3"),
        (Location(Path("a"), 3, 4), "a:3:4"),
        (Location(Path("a"), None, 4), "a"),
    ],
)
def test_places(where: Location, text: str) -> None:
    assert str(where) == text
    assert str(LapwingError("m", where=where)) == f"{text}: m"
