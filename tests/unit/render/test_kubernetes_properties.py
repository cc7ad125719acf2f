"""What must hold for the manifests of any stack, and not only for those of the golden cases."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lapwing.errors import UsageError
from lapwing.render.kubernetes import edge_config, render
from lapwing.render.kubernetes.edge import size_of
from lapwing.render.kubernetes.setting import text
from lapwing.render.terraform.files import files
from lapwing.stack import fields
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Stack
from lapwing.stack.rules import RULES
from tests.unit.render.test_kubernetes import WORKLOADS, pods_of

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,14}[a-z0-9])?", fullmatch=True)
VARIABLES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@st.composite
def services(draw: st.DrawFn, route: str, resources: list[str]) -> dict[str, Any]:
    kind = draw(st.sampled_from(["web", "static", "worker", "job"]))
    made: dict[str, Any] = {"kind": kind, "image": "registry.example/a/b:1"}
    if kind in ("web", "static"):
        made["route"] = route
    if kind == "static":
        return {**made, "static": "dist"}
    made["env"] = draw(st.dictionaries(VARIABLES, TEXTS, max_size=3))
    made["secrets"] = draw(st.lists(VARIABLES, max_size=3, unique=True))
    made["needs"] = draw(st.lists(st.sampled_from(resources), unique=True)) if resources else []
    if kind != "job":
        least = draw(st.integers(1, 3))
        made["replicas"] = {"min": least, "max": draw(st.integers(least, 5))}
    if kind == "web" and draw(st.booleans()):
        made["rollout"] = {"smoke": [{"run": "python smoke.py"}], "hold": draw(st.booleans())}
    return made


@st.composite
def stacks(draw: st.DrawFn) -> LoadedStack:
    resources = draw(
        st.dictionaries(
            NAMES, st.sampled_from(["mysql", "redis", "mongodb", "postgres"]), max_size=2
        )
    )
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    cluster: dict[str, Any] = {"target": "kubernetes", "spot": draw(st.booleans())}
    if draw(st.booleans()):
        cluster["cloud"] = {"provider": "gcp", "region": "europe-west1", "project": "a-project-1"}
    else:
        cluster["rollouts"] = draw(st.booleans())
    stack = Stack.model_validate(
        {
            "stack": draw(NAMES),
            "services": {n: draw(services(f"/r{i}", list(resources))) for i, n in enumerate(names)},
            "resources": {n: {"kind": k} for n, k in resources.items()},
            "environments": {"live": cluster},
        }
    )
    environment = stack.environments["live"]
    assume(not [b for rule in RULES for b in rule(stack, environment)])
    return LoadedStack(stack, "live", environment, Path("lapwing.yaml"))


@settings(max_examples=60)
@given(stacks())
def test_names_are_valid_and_unique_and_selectors_match_their_pods(loaded: LoadedStack) -> None:
    made = render.prepare(loaded)
    try:
        trees = render.objects(made)
    except UsageError:  # A name that is too long, or twice there, is refused.
        return
    names = [(t["kind"], t["metadata"]["name"]) for t in trees]
    assert len(set(names)) == len(names)
    assert all(DNS_LABEL.fullmatch(name) for _, name in names)
    pods = [(t["metadata"]["name"], p["metadata"]["labels"]) for t in trees for p in pods_of(t)]
    for _, labels in pods:
        assert all(
            re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", v) for v in labels.values()
        )
    for tree in trees:
        spec = tree.get("spec", {})
        chosen = spec.get("selector", {})
        if tree["kind"] in WORKLOADS:
            chosen = chosen["matchLabels"]
        elif tree["kind"] != "Service":
            continue
        assert len([n for n, labels in pods if chosen.items() <= labels.items()]) == 1


@settings(max_examples=60)
@given(stacks())
def test_files_parse_to_rendered_objects(loaded: LoadedStack) -> None:
    made = render.prepare(loaded)
    try:
        objects = render.objects(made)
    except UsageError:
        return
    read = [d for t in render.files(made).values() for d in yaml.safe_load_all(t)]
    assert all(tree in objects for tree in read)
    assert len(read) == len(objects)
    assert render.files(made) == render.files(made)


ROUTES = st.from_regex(fields.PATH, fullmatch=True, alphabet=st.characters(codec="ascii")).filter(
    lambda r: r.isprintable()
)
"""Clients encode every other character."""


def routed(route: str, cluster: dict[str, Any], name: str = "api") -> LoadedStack:
    """A stack of one service with a route."""
    stack = Stack.model_validate(
        {
            "stack": "shop",
            "services": {name: {"kind": "web", "image": "registry.example/a:1", "route": route}},
            "environments": {"live": {"target": "kubernetes", **cluster}},
        }
    )
    return LoadedStack(stack, "live", stack.environments["live"], Path("lapwing.yaml"))


def is_valid(loaded: LoadedStack) -> bool:
    """Report whether `lapwing check` accepts a stack."""
    return not [b for rule in RULES for b in rule(loaded.stack, loaded.settings)]


@example("/PREFIX0")
@example("/leaf0mark0q")
@example("/{{")
@example("/{{x}}/%v")
@example("/$$(HOST)")
@settings(max_examples=60)
@given(ROUTES)
def test_edge_routes_equal_routes_of_stack_file(route: str) -> None:
    loaded = routed(route, {})
    assume(is_valid(loaded))
    made = render.prepare(loaded)
    config = yaml.safe_load(text(edge_config.configuration(made, size_of(made)), made.scopes))
    web = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    [host] = web["typed_config"]["route_config"]["virtual_hosts"]
    matches = [r["match"] for r in host["routes"] if "route" in r]
    prefixes = [{v for k, v in match.items() if k != "headers"} for match in matches]
    assert prefixes == 2 * [{route.rstrip("/") or "/"}]  # First for the methods that are retried.
    [api, *_] = config["static_resources"]["clusters"]
    [group] = api["load_assignment"]["endpoints"]
    address = group["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"]
    assert address == "shop-api"


@example("/${google_project.main.number}")
@example("/%{if}x")
@example("/$${x}")
@settings(max_examples=60)
@given(ROUTES)
def test_terraform_routes_equal_routes_of_stack_file(route: str) -> None:
    cloud = {"provider": "gcp", "region": "europe-west1", "project": "a-project-1"}
    loaded = routed(route, {"cloud": cloud, "domain": "shop.example"})
    assume(is_valid(loaded))
    edge = json.loads(files([loaded])["live"]["edge.tf.json"])
    [matcher] = edge["resource"]["google_compute_url_map"]["edge"]["path_matcher"]
    paths = [path for rule in matcher.get("path_rule", ()) for path in rule["paths"]]
    bare = route.rstrip("/")
    assert [evaluated(path) for path in paths] == ([bare, f"{bare}/*"] if bare else [])


def evaluated(text: str) -> str:
    """The value of a Terraform string without expressions.

    Source: Terraform documentation, Strings and Templates, Escape Sequences.
    """
    assert not re.search(r"(?<![$])[$]{|(?<!%)%{", text), text
    return text.replace("$${", "${").replace("%%{", "%{")


def test_service_named_admin_keeps_its_own_cluster() -> None:
    made = render.prepare(routed("/", {}, "admin"))
    config = yaml.safe_load(text(edge_config.configuration(made, size_of(made)), made.scopes))
    names = [cluster["name"] for cluster in config["static_resources"]["clusters"]]
    assert sorted(names) == ["admin", "envoy_admin", "envoy_drain"]
