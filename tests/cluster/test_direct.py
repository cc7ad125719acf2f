"""An environment that Lapwing applies itself, from nothing to nothing, as people call it."""

from __future__ import annotations

import base64
import json
import signal
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import CONTEXT, Cluster, wait_until
from tests.cluster.shop import WORK, Shop, program, volumes
from tests.installation import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def shop(cluster: Cluster, tmp_path: Path) -> Shop:
    volumes(cluster)
    made = Shop(cluster, tmp_path, f"shop-{uuid.uuid4().hex[:6]}")
    made.write()
    return made


def plain(data: str) -> str:
    return base64.b64decode(data).decode()


def color(shop: Shop) -> str:
    container = shop.deployment("api")["spec"]["template"]["spec"]["containers"][0]
    return next(str(e["value"]) for e in container["env"] if e["name"] == "COLOR")


def image(shop: Shop) -> str:
    return str(shop.deployment("api")["spec"]["template"]["spec"]["containers"][0]["image"])


def test_up_deploy_and_down(shop: Shop) -> None:
    status, out, err = shop.call("up")
    assert (status, out) == (1, "")
    assert "TOKEN is not set" in err
    assert "lapwing secret set TOKEN -e kind" in err
    assert shop.cluster.call("GET", f"/api/v1/namespaces/{shop.namespace}") is None
    assert shop.json("history") == []

    shop.secret("s3cret")
    said = shop.run("up")
    assert "Run `lapwing open -e kind` to reach it at https://localhost:" in said
    assert "s3cret" not in said
    found = shop.json("status")
    assert {s["name"]: s["phase"] for s in found["services"]} == {
        "api": "running", "work": "running", "migrate": "done", "edge": "running",
    }  # fmt: skip
    assert [(r["name"], r["running"]) for r in found["resources"]] == [("cache", True)]
    [entry] = shop.json("history")
    assert found["commit"] == entry["commit"]
    assert (entry["outcome"], entry["actor"]) == ("succeeded", "tester")
    first = shop.secrets()
    assert set(first) == {"cache", "secret-token", "secret-key", "edge-tls"}
    assert plain(first["secret-token"]["value"]) == "s3cret"
    assert len(plain(first["secret-key"]["value"])) == 32
    assert "BEGIN CERTIFICATE" in plain(first["edge-tls"]["tls.crt"])
    assert shop.json("up")["outcome"] == "unchanged"

    shop.write(tag="v2", color="blue", more="")
    done = shop.json("deploy")
    assert done["outcome"] == "succeeded"
    assert f"Deployment {shop.name}-work" in done["rollout"]["removed"]
    assert shop.deployment("work") is None
    assert (image(shop), color(shop)) == ("shop/api:v2", "blue")
    assert shop.secrets() == first

    job = shop.get("batch/v1:jobs")["items"]
    shop.run("rollback")
    assert (image(shop), color(shop)) == ("shop/api:v1", "red")
    assert shop.deployment("work") is not None
    assert {j["metadata"]["name"] for j in shop.get("batch/v1:jobs")["items"]} <= {
        j["metadata"]["name"] for j in job
    }
    assert shop.outcomes() == [
        ("rollback", "succeeded"), ("deploy", "succeeded"), ("deploy", "succeeded"),
    ]  # fmt: skip

    shop.run("down")
    assert shop.deployment("api") is None
    assert set(shop.secrets()) == {"cache", "secret-key", "edge-tls"}
    assert [c["metadata"]["name"] for c in shop.get("persistentvolumeclaims")["items"]] == [
        f"data-{shop.name}-cache-0"
    ]
    assert shop.json("status", status=0)["running"] is False
    assert shop.json("down", status=1)["error"]["code"] == "state"
    shop.run("up")
    again = shop.secrets()
    assert again == first

    assert shop.json("down", "--volumes", status=2)["error"]["code"] == "usage"
    assert shop.deployment("api") is not None
    shop.run("down")
    shop.run("down", "--volumes", "--yes")
    path = f"/api/v1/namespaces/{shop.namespace}"
    wait_until(lambda: shop.cluster.call("GET", path) is None, "the namespace is gone")


def test_rollback_restores_settings_and_new_secret_restarts_pods(shop: Shop) -> None:
    shop.secret("first")
    shop.run("up")
    before = shop.deployment("api")["spec"]["template"]
    shop.secret("second")
    shop.run("deploy")
    assert plain(shop.secrets()["secret-token"]["value"]) == "second"
    assert shop.deployment("api")["spec"]["template"] != before
    assert shop.deployment("work")["metadata"]["generation"] == 1
    shop.run("rollback")
    assert plain(shop.secrets()["secret-token"]["value"]) == "first"
    assert shop.deployment("api")["spec"]["template"] == before


def test_up_waits_until_an_autoscaler_has_started_the_minimum(shop: Shop) -> None:
    shop.secret("a")
    shop.write(more=WORK.replace("}", ", replicas: {min: 3, max: 4}}"))
    shop.run("up")
    assert shop.deployment("work")["status"]["readyReplicas"] == 3
    checks = {c["check"]: c["ok"] for c in shop.json("verify", status=1)}
    assert checks["work: the minimum of pods is requested"]


def test_crashing_release_is_reported_and_rolled_back(shop: Shop) -> None:
    shop.secret("x")
    shop.run("up")
    shop.write(tag="crash")
    text = (shop.folder / "lapwing.yaml").read_text()
    (shop.folder / "lapwing.yaml").write_text(
        text.replace("kind: job, image: \"shop/api:crash\"", "kind: job, image: \"shop/api:v1\"")
    )  # fmt: skip
    result = shop.json("deploy", status=1)
    assert (result["kind"], result["outcome"]) == ("deploy", "failed")
    assert "crash loop" in result["reason"]
    assert "lapwing rollback -e kind" in result["hint"]
    found = shop.json("status", status=1)
    assert "failed" in found["problem"]
    [api] = [s for s in found["services"] if s["name"] == "api"]
    assert shop.outcomes()[0] == ("deploy", "failed")
    assert api["active"] is not None
    shop.run("abort")
    assert shop.outcomes()[:2] == [("abort", "succeeded"), ("deploy", "aborted")]
    assert image(shop) == "shop/api:v1"
    assert shop.json("status")["problem"] is None


def test_killed_command_is_continued_and_concurrent_one_refused(shop: Shop) -> None:
    shop.secret("x")
    shop.write(tag="slow")
    first = shop.start("up")
    wait_until(lambda: shop.get("batch/v1:jobs/") is not None and bool(
        shop.get("batch/v1:jobs")["items"]), "its job is there")  # fmt: skip
    second = shop.json("up", status=1)
    assert second["error"]["code"] == "conflict"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    found = shop.json("status", status=1)
    assert "was interrupted" in found["problem"]
    assert shop.outcomes() == [("deploy", "in-progress")]
    made = shop.secrets()

    shop.write(tag="v1", more="")
    third = shop.start("up")
    wait_until(  # The first one may have got as far as its Deployment.
        lambda: shop.deployment("api") is not None and image(shop) == "shop/api:v1", "it applies"
    )
    third.send_signal(signal.SIGINT)
    _, said = third.communicate()
    if third.returncode == 130:
        assert "Run `lapwing up -e kind` to continue." in said
    else:  # It was faster. A signal that comes when it has all but ended ends Python at once.
        assert third.returncode in (0, -signal.SIGINT), said
        assert "Deployed" in said
    done = shop.json("up")
    assert done["outcome"] in ("succeeded", "unchanged")
    assert shop.outcomes() == [("deploy", "succeeded"), ("deploy", "superseded")]
    names = [j["metadata"]["name"] for j in shop.get("batch/v1:jobs")["items"]]
    assert len(names) == 1
    assert shop.secrets() == made


def test_exceeded_quota_fails_the_deployment(shop: Shop) -> None:
    shop.secret("x")
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": shop.namespace}}
    shop.cluster.call("POST", "/api/v1/namespaces", space)
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": {"pods": "2"}},
    }
    path = f"/api/v1/namespaces/{shop.namespace}/resourcequotas"
    shop.cluster.call("POST", path, quota)
    wait_until(lambda: bool(shop.get("resourcequotas/small").get("status", {}).get("used")),
               "the quota is counted")  # fmt: skip
    result = shop.json("up", status=1)
    assert result["outcome"] == "failed"
    assert "exceeded quota: small" in result["reason"]
    assert "larger quota" in result["hint"]
    assert shop.outcomes() == [("deploy", "failed")]
    shop.cluster.call("DELETE", f"{path}/small")
    assert shop.json("up")["outcome"] == "succeeded"


def test_missing_requirements_are_reported_before_any_change(shop: Shop, tmp_path: Path) -> None:
    shop.secret("x")
    shop.write(said=", gateway: gateway")
    told = shop.json("up", status=1)["error"]
    assert told["code"] == "kind-missing"
    assert "Gateway API" in told["hint"]
    shop.write(said=", delivery: direct")
    assert shop.json("up", "--context", "production", status=2)["error"]["code"] == "context"
    told = shop.json("up", "--context", "nobody", status=2)["error"]
    assert CONTEXT in told["hint"]
    away = tmp_path / "away"
    away.write_text(
        shop.cluster.kubeconfig.read_text().replace(
            shop.cluster.server, f"https://127.0.0.1:{free_port()}"
        )
    )
    status, out, _ = shop.call("up", "--output", "json", KUBECONFIG=str(away))
    assert (status, json.loads(out)["error"]["code"]) == (1, "cluster-unreachable")
    text = (shop.folder / "lapwing.yaml").read_text()
    (shop.folder / "work").mkdir()
    (shop.folder / "work" / "requirements.txt").touch()
    (shop.folder / "lapwing.yaml").write_text(
        text.replace(WORK, "  work: {build: ./work, command: work}")
    )
    told = shop.json("up", status=1)["error"]
    assert "work is not in a git repository" in told["message"]
    assert shop.cluster.call("GET", f"/api/v1/namespaces/{shop.namespace}") is None
    assert shop.json("history") == []
    done = shop.json("up", "--image", "work=shop/work:v7")
    assert done["services"]["work"]["release"] == "work:v7"


def test_environment_keeps_its_context(shop: Shop, tmp_path: Path) -> None:
    shop.secret("x")
    shop.run("up", "--context", "production", "--yes")
    told = shop.json("deploy", status=2)["error"]  # It is asked for, though another is current.
    assert "production" in told["message"]
    assert shop.json("status")["running"]


SEED = "  seed: {kind: job, image: 'shop/seed:v1', command: seed, user: 1000, after: [api]}"


def seeds(shop: Shop) -> list[dict[str, Any]]:
    """The Jobs that run after the service."""
    found: list[dict[str, Any]] = shop.get("batch/v1:jobs")["items"]
    return [j for j in found if j["metadata"]["name"].startswith(f"{shop.name}-seed-")]


def test_held_deployment_prunes_nothing_until_promoted(shop: Shop) -> None:
    shop.secret("x")
    told = shop.json("deploy", "--hold", status=2)["error"]
    assert "rollouts: true" in told["hint"]
    said = ", rollouts: true"
    shop.write(said=said)
    shop.run("up")
    shop.write(tag="v2", more=SEED, said=said)
    assert shop.json("deploy", "--hold")["outcome"] == "held"
    assert shop.deployment("work") is not None
    assert seeds(shop) == []
    found = shop.json("status")
    assert found["rollout"]["state"] == "holding"
    assert shop.outcomes()[0] == ("deploy", "in-progress")
    shop.run("promote")
    assert shop.deployment("work") is None
    [seed] = seeds(shop)
    assert seed["status"]["succeeded"] == 1
    [api] = [s for s in shop.json("status")["services"] if s["name"] == "api"]
    assert api["active"]["release"] == "api:v2"
    assert shop.outcomes()[:2] == [("promote", "succeeded"), ("deploy", "succeeded")]
    shop.write(tag="v3", more="", said=said)
    assert shop.json("deploy", "--hold")["outcome"] == "held"
    shop.run("abort")
    assert shop.outcomes()[:2] == [("abort", "succeeded"), ("deploy", "aborted")]
    found = shop.json("status")
    [api] = [s for s in found["services"] if s["name"] == "api"]
    assert (api["phase"], api["active"]["release"]) == ("running", "api:v2")
    assert shop.json("abort", status=1)["error"]["code"] == "state"


KIND = """
import json, os, shutil, sys
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1:3] == ["create", "cluster"]:
    print("Creating cluster ...", file=sys.stderr)
    with open(os.environ["REAL"]) as real, open(os.environ["KUBECONFIG"], "w") as made:
        made.write(real.read().replace(os.environ["WAS"], "kind-" + sys.argv[4]))
if sys.argv[1:3] == ["delete", "cluster"]:
    os.unlink(os.environ["KUBECONFIG"])
"""


def test_local_cluster_is_created_and_deleted_by_its_tool(shop: Shop, tmp_path: Path) -> None:
    """A program of kind's name records how it is called, and makes the real control plane appear:
    no container can be started here."""
    calls, tools = tmp_path / "calls", tmp_path / "tools"
    shop.environ |= {
        "CALLS": str(calls),
        "REAL": str(shop.cluster.kubeconfig),
        "WAS": CONTEXT,
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "PATH": f"{tools}:/usr/bin:/bin",
    }
    shop.secret("x")
    told = shop.json("up", status=1)["error"]
    assert told["code"] == "cluster-unreachable"
    assert "--create" in told["hint"]
    told = shop.json("up", "--create", status=1)["error"]
    assert told["code"] == "tool-missing"
    assert "kind.sigs.k8s.io" in told["hint"]
    program(tools, "kind", KIND)
    shop.run("up", "--create")
    shop.run("up", "--create")
    made: list[Any] = [json.loads(line) for line in calls.read_text().splitlines()]
    assert made == [
        ["get", "clusters"], ["create", "cluster", "--name", shop.name, "--wait", "300s"],
    ]  # fmt: skip
    assert shop.json("status")["running"]
    assert shop.json("down", "--cluster", status=2)["error"]["code"] == "usage"
    shop.run("down", "--cluster", "--yes")
    last = json.loads(calls.read_text().splitlines()[-1])
    assert last == ["delete", "cluster", "--name", shop.name]
    assert shop.outcomes()[0] == ("down", "succeeded")
