"""Helm renders a chart to what the renderer writes, for any tree."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lapwing.errors import UsageError
from lapwing.render.helm import chart
from lapwing.render.helm.chart import About, Templated
from lapwing.render.kubernetes.setting import Digest, Scope, Setting, join, resolve
from tests.unit.render.helm import helm

ABOUT = About("shop", "1.2.3", "v9", 'A shop: "all" of it')
SCOPES = {
    Scope.PREFIX: "shop", Scope.NAMESPACE: "prod", Scope.MANAGER: "Helm",
    Scope.CHART: "shop-1.2.3", Scope.APP_VERSION: "v9",
}  # fmt: skip
NOTES: dict[str, Any] = {"generated": (), "given": (), "edge": None}


def files(trees: list[Any]) -> dict[str, str]:
    objects = [
        Templated(
            f"file-{index % 3}.yaml",
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": join(Scope.PREFIX, f"-n{index}")},
                "data": tree,
            },
        )
        for index, tree in enumerate(trees)
    ]
    return chart.files(ABOUT, objects, notes=NOTES, head="Values of a shop.")


def by_name(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {item["metadata"]["name"]: item["data"] for item in found}


def expected(trees: list[Any]) -> dict[str, Any]:
    return {f"shop-n{i}": resolve(tree, SCOPES) for i, tree in enumerate(trees)}


paths = itertools.count()
characters = st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t")
words = st.text(st.sampled_from('ab1-{}:"%#\\ \n'), max_size=8) | st.text(characters, max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**31), 2**53) | words
floats = st.sampled_from([0.5, 1.25, 99.9])
keys = st.sampled_from(["a", "B_C", "d-e", "app.kubernetes.io/name", "x y", "true"])
plain = st.recursive(
    scalars | floats,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
DEEP = st.sampled_from(["api.", "my-api.x.", ""])


def a_setting(defaults: st.SearchStrategy[Any]) -> st.SearchStrategy[Setting]:
    return st.builds(
        lambda deep, default, comment: Setting(f"{deep}v{next(paths)}", default, comment),
        DEEP, defaults, st.sampled_from(["", "A {{ comment }}."]),
    )  # fmt: skip


mappings = st.dictionaries(st.sampled_from(["cpu", "a"]), st.sampled_from([1, "2Gi", True, [0]]))
text_settings = a_setting(
    st.integers(0, 2**40) | st.booleans() | mappings | st.text("ab c\"'{\\", max_size=6)
)
pieces = st.sampled_from(list(Scope)) | words | text_settings
joined = st.lists(pieces, min_size=1, max_size=4).map(lambda found: join(*found))
digests = st.builds(Digest, joined)
texts = st.lists(pieces | digests, min_size=1, max_size=4).map(lambda found: join(*found))
leaves = a_setting(plain) | st.sampled_from(list(Scope)) | joined | texts | digests
trees = st.recursive(
    scalars | leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@example([*[0] * 14, "1 \n"])
@example([*[0] * 14, Setting("api.v", ["\n"], "")])
@example([*[0] * 14, {"a": ["1\u3000\n"]}])
@example([*[0] * 14, Setting("api.v", ["test", "x", "=", "x", "<<", "y"], "")])
@example([*[0] * 14, Setting("api.v", {"=": "=", "a": ["=", ["<<"]]}, "")])
@example([["="], ["<<"], {"=": "<<"}, {"<<": "="}])
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(st.lists(trees, min_size=15, max_size=40))
@example([None, join(Scope.PREFIX, " \n")])
def test_helm_template_equals_rendered_tree(found: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = helm.write(Path(folder), files(found))
        assert by_name(helm.template(path)) == expected(found)


def one(default: Any) -> list[Any]:
    return [{"a": Setting("api.value", default, "What it is."), "b": join("x-", Scope.PREFIX)}]


@pytest.mark.parametrize("value", [7, 2**40, False, 'quo"te', "", "no", "1e3", {"x": [1]}, [True]])
def test_set_value_appears_in_object(value: Any, tmp_path: Path) -> None:
    other = {int: 1, bool: True, str: "old", dict: {"x": 0}, list: [0]}[type(value)]
    path = helm.write(tmp_path / "chart", files(one(other)))
    given_values = tmp_path / "given.yaml"
    given_values.write_text(json.dumps({"api": {"value": value}}))
    found = by_name(helm.template(path, "--values", str(given_values)))
    assert found["shop-n0"]["a"] == value


@pytest.mark.parametrize(
    "wrong", ["api.value=text", "api.vlaue=3", "api=3", "replicas=3", "api.value=-1"]
)
def test_schema_rejects_invalid_values(wrong: str, tmp_path: Path) -> None:
    path = helm.write(tmp_path, files(one(1)))
    ran = helm.run("template", "shop", path, "--set", wrong)
    assert ran.returncode != 0
    assert "schema" in ran.stderr


def test_lint_reports_only_missing_icon(tmp_path: Path) -> None:
    ran = helm.run("lint", "--strict", helm.write(tmp_path / "shop", files(one(1))))
    assert ran.returncode == 0, ran.stdout
    assert [line for line in ran.stdout.splitlines() if line.startswith("[")] == [
        "[INFO] Chart.yaml: icon is recommended"
    ]


def test_object_names_start_with_release_name(tmp_path: Path) -> None:
    path = helm.write(tmp_path, files(one(1)))
    assert "mine-shop-n0" in by_name(helm.template(path, release="mine"))
    assert "my-shop-n0" in by_name(helm.template(path, release="my-shop"))
    assert "it-n0" in by_name(helm.template(path, "--set", "fullnameOverride=it"))


def test_release_name_that_makes_object_names_too_long_is_rejected(tmp_path: Path) -> None:
    tree = {"metadata": {"name": join(Scope.PREFIX, "-" + "n" * 30)}, "kind": "Service"}
    objects = [Templated("s.yaml", {"apiVersion": "v1", **tree})]
    path = helm.write(tmp_path, chart.files(ABOUT, objects, notes=NOTES, head=""))
    fits = helm.template(path, release="r" * 27)
    assert len(fits[0]["metadata"]["name"]) == 63
    ran = helm.run("template", "r" * 28, path)
    assert ran.returncode != 0
    assert "Choose a shorter release name" in ran.stderr


def test_too_long_chart_name_is_rejected() -> None:
    tree = {"metadata": {"name": join(Scope.PREFIX, "-" + "n" * 50)}, "kind": "StatefulSet"}
    with pytest.raises(UsageError, match="too long"):
        chart.files(ABOUT, [Templated("s.yaml", tree)], notes=NOTES, head="")


@pytest.mark.parametrize("wrong", ["v1.2.3", "1.2", "01.2.3", "1.2.3-", "1.2.3 ", "", "1.2.3-01"])
def test_invalid_chart_version_is_rejected(wrong: str) -> None:
    with pytest.raises(UsageError, match="Invalid chart version"):
        chart.check_version(wrong)


def test_two_defaults_for_one_value_raise() -> None:
    with pytest.raises(ValueError, match="two defaults"):
        files([{"a": Setting("x", 1), "b": Setting("x", 2)}])
