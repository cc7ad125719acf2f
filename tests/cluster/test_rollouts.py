"""Blue-green by the real Argo Rollouts controller, seen through our status and steered by our
promote and abort."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from lapwing.errors import DeploymentFailed, StateError
from lapwing.kubernetes import apply, prune, rollouts, wait
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.health import Health
from lapwing.kubernetes.objects import Reference
from lapwing.kubernetes.status import read_status
from lapwing.kubernetes.wait import WaitLimits
from lapwing.observed.status import ServiceStatus, Status
from tests.cluster import objects
from tests.cluster.control_plane import Cluster, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
LIMITS = WaitLimits(deadline=180.0, patience=2.0)


def deploy(api: ApiClient, scope: Scope, image: str, **strategy: Any) -> dict[Reference, Health]:
    states: dict[Reference, Health] = {}

    def ready(references: Sequence[Reference]) -> None:
        states.update(wait.wait_until_ready(api, references, limits=LIMITS))

    template = strategy.pop("analysis", None)
    things = [objects.namespace(scope), *objects.rollout(scope, "api", image, **strategy)]
    apply.apply_objects(
        api, scope, [*things, *([template] if template else ())], commit=image, wait=ready
    )
    return states


def look(api: ApiClient, scope: Scope) -> tuple[Status, ServiceStatus]:
    found = read_status(api, scope, "https://shop.example")
    assert found is not None
    [service] = [s for s in found.services if s.name == "api"]
    return found, service


def until(
    api: ApiClient, scope: Scope, holds: Callable[[Status, ServiceStatus], bool], what: str
) -> None:
    wait_until(lambda: holds(*look(api, scope)), what)


def served(api: ApiClient, cluster: Cluster, scope: Scope) -> str:
    """The image of the pods that the active Service really selects."""
    base = f"/api/v1/namespaces/{scope.namespace}"
    selector = cluster.call("GET", f"{base}/services/api")["spec"]["selector"]
    labels = ",".join(f"{k}={v}" for k, v in selector.items())
    pods = api.list("v1", "Pod", scope.namespace, labels)
    images = {p["spec"]["containers"][0]["image"] for p in pods}
    assert len(images) == 1
    return str(images.pop())


class Judge:
    """A server that an analysis asks; it answers what the test wants."""

    def __init__(self) -> None:
        self.fine = True
        judge = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"fine": judge.fine}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)

    def template(self, scope: Scope) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.server.server_port}/"
        metric = {
            "name": "smoke",
            "successCondition": "result == true",
            "provider": {"web": {"url": url, "jsonPath": "{$.fine}"}},
        }
        return {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "AnalysisTemplate",
            "metadata": {"name": "smoke", "namespace": scope.namespace},
            "spec": {"metrics": [metric]},
        }


@pytest.fixture
def judge() -> Iterator[Judge]:
    made = Judge()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_switch_and_rollback_to_the_warm_slot(
    api: ApiClient, cluster: Cluster, scope: Scope
) -> None:
    deploy(api, scope, "shop/api:v1")
    _, first = look(api, scope)
    assert first.phase == "running"
    assert first.active is not None
    assert (first.active.slot, first.active.release, first.active.ready) == ("blue", "api:v1", 2)
    deploy(api, scope, "shop/api:v2")

    def warm(_status: Status, service: ServiceStatus) -> bool:
        return service.idle is not None and service.idle.warm_for is not None

    until(api, scope, warm, "the old slot has a deadline")
    status, second = look(api, scope)
    assert status.rollout is None
    assert second.active is not None
    assert second.idle is not None
    assert (second.active.slot, second.active.release) == ("green", "api:v2")
    assert (second.idle.slot, second.idle.release) == ("blue", "api:v1")
    assert second.idle.warm_for is not None
    assert 0 < second.idle.warm_for <= 600
    assert served(api, cluster, scope) == "shop/api:v2"
    before = {p["metadata"]["uid"] for p in api.list("v1", "Pod", scope.namespace)}
    deploy(api, scope, "shop/api:v1", autoPromotionEnabled=False)  # Warm: it does not pause.
    _, third = look(api, scope)
    assert third.active is not None
    assert third.active.release == "api:v1"
    assert served(api, cluster, scope) == "shop/api:v1"
    assert {p["metadata"]["uid"] for p in api.list("v1", "Pod", scope.namespace)} <= before


def test_two_old_slots_at_most_keep_their_pods(
    api: ApiClient, cluster: Cluster, scope: Scope
) -> None:
    for number in range(1, 5):
        deploy(api, scope, f"shop/api:v{number}")
    wait_until(lambda: images(api, scope) == {"v2", "v3", "v4"}, "the first release has no pods")
    deploy(api, scope, "shop/api:v5", autoPromotionEnabled=False)
    deploy(api, scope, "shop/api:v6")  # It replaces a candidate that never had traffic.
    assert served(api, cluster, scope) == "shop/api:v6"
    wait_until(lambda: images(api, scope) == {"v4", "v5", "v6"}, "the older releases have no pods")
    before = {p["metadata"]["uid"] for p in api.list("v1", "Pod", scope.namespace)}
    deploy(api, scope, "shop/api:v4", autoPromotionEnabled=False)  # The previous one is warm.
    assert served(api, cluster, scope) == "shop/api:v4"
    assert {p["metadata"]["uid"] for p in api.list("v1", "Pod", scope.namespace)} <= before


def images(api: ApiClient, scope: Scope) -> set[str]:
    """The tags of the images of all pods."""
    pods = api.list("v1", "Pod", scope.namespace)
    return {p["spec"]["containers"][0]["image"].rpartition(":")[2] for p in pods}


def test_held_release_waits_for_promote(api: ApiClient, cluster: Cluster, scope: Scope) -> None:
    deploy(api, scope, "shop/api:v1", autoPromotionEnabled=False)
    with pytest.raises(StateError, match="No deployment in progress"):
        rollouts.promote(api, scope)
    states = deploy(api, scope, "shop/api:v2", autoPromotionEnabled=False)
    assert {h.state for r, h in states.items() if r.kind == "Rollout"} == {"held"}
    status, service = look(api, scope)
    assert status.rollout is not None
    assert (status.rollout.state, service.phase) == ("holding", "held")
    assert served(api, cluster, scope) == "shop/api:v1"
    assert [r.name for r in rollouts.promote(api, scope)] == ["api"]
    until(api, scope, lambda st, s: st.rollout is None and s.phase == "running", "promoted")
    assert served(api, cluster, scope) == "shop/api:v2"


def test_aborted_release_never_serves(api: ApiClient, cluster: Cluster, scope: Scope) -> None:
    deploy(api, scope, "shop/api:v1", autoPromotionEnabled=False)
    deploy(api, scope, "shop/api:v2", autoPromotionEnabled=False)
    assert [r.name for r in rollouts.abort(api, scope)] == ["api"]

    def over(status: Status, _service: ServiceStatus) -> bool:
        return status.rollout is not None and status.rollout.outcome == "failed"

    until(api, scope, over, "aborted")
    assert served(api, cluster, scope) == "shop/api:v1"
    deploy(api, scope, "shop/api:v1", autoPromotionEnabled=False)  # What the revert commit says.
    status, service = look(api, scope)
    assert (status.rollout, service.phase) == (None, "running")
    assert served(api, cluster, scope) == "shop/api:v1"


@pytest.mark.parametrize("when", ["pre", "post"])
def test_failed_analysis_keeps_or_returns_traffic(
    api: ApiClient, cluster: Cluster, scope: Scope, judge: Judge, when: str
) -> None:
    check = {f"{when}PromotionAnalysis": {"templates": [{"templateName": "smoke"}]}}
    deploy(api, scope, "shop/api:v1", analysis=judge.template(scope), **check)
    deploy(api, scope, "shop/api:v2", analysis=judge.template(scope), **check)
    assert served(api, cluster, scope) == "shop/api:v2"
    said = {"pre": "the smoke tests", "post": "the analysis of live traffic"}[when]
    judge.fine = False
    with pytest.raises(DeploymentFailed, match=f"Rollout api .*{said} did not pass"):
        deploy(api, scope, "shop/api:v3", analysis=judge.template(scope), **check)
    status, service = look(api, scope)
    assert status.rollout is not None
    assert status.rollout.outcome == "failed"
    assert said in str(status.rollout.reason)
    assert service.active is not None
    assert (service.phase, service.active.release) == ("running", "api:v2")
    assert served(api, cluster, scope) == "shop/api:v2"


def test_down_keeps_data(api: ApiClient, cluster: Cluster, scope: Scope) -> None:
    deploy(api, scope, "shop/api:v1")
    path = f"/api/v1/namespaces/{scope.namespace}/secrets"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db-password"}}
    cluster.call("POST", path, secret)
    assert {r.kind for r in prune.delete_all(api, scope)} == {"Rollout", "Service"}
    assert read_status(api, scope, "") is None
    assert cluster.call("GET", f"{path}/db-password") is not None
