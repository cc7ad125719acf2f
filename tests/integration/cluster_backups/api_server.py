"""A simulated API server on loopback that runs the containers of Jobs as processes.

The tests of `make test-cluster` have a real API server, but no databases. Here the programs in the
containers are real; the API server, its controllers and the kubelet are simulated.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
Run = Callable[[Json, str], tuple[int, str]]
"""Runs a container of a pod of this name to its end: its status and its log."""
PLURALS = {
    "v1": {"Pod": "pods", "Event": "events", "ConfigMap": "configmaps"},
    "batch/v1": {"CronJob": "cronjobs", "Job": "jobs"},
    "argoproj.io/v1alpha1": {"Application": "applications"},
    "apps/v1": {
        "Deployment": "deployments",
        "StatefulSet": "statefulsets",
        "ReplicaSet": "replicasets",
    },
}


class Cluster:
    """The objects by path, and the logs of containers.

    A pod that a client creates is ready at once if `is_ready`, and has the log `output`. Without
    `quota` it is refused.
    """

    def __init__(self, run: Run) -> None:
        self.objects: dict[str, Json] = {}
        self.logs: dict[tuple[str, str], str] = {}
        self.jobs: list[Json] = []
        self.output = ""
        self.is_ready, self.quota = True, True
        self._run = run
        self._version = 0

    def add(self, thing: Json) -> None:
        """Add an object."""
        metadata = thing["metadata"]
        self._version += 1
        metadata.setdefault("uid", f"uid-{metadata['name']}-{self._version}")
        metadata["resourceVersion"] = str(self._version)
        if thing["kind"] == "Deployment":
            count = thing["spec"].get("replicas", 1)
            counted = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
            thing["status"] = dict.fromkeys(counted, count)
        plural = PLURALS[thing["apiVersion"]][thing["kind"]]
        root = "/apis/" if "/" in thing["apiVersion"] else "/api/"
        path = f"{root}{thing['apiVersion']}/namespaces/{metadata['namespace']}/{plural}"
        self.objects[f"{path}/{metadata['name']}"] = thing

    def start(self, job: Json) -> None:
        """Run a Job: one pod, whose containers run one after the other."""
        self.add(job)
        self.jobs.append(job)
        job["status"] = {"active": 1}
        threading.Thread(target=self._work, args=(job,)).start()

    def delete(self, path: str) -> Json:
        """Delete an object and the pods that it owns."""
        found = self.objects.pop(path, {})
        uid = found.get("metadata", {}).get("uid")
        for other, thing in list(self.objects.items()):
            if uid in [o["uid"] for o in thing["metadata"].get("ownerReferences", ())]:
                self.objects.pop(other, None)
        return found

    def _work(self, job: Json) -> None:
        name, spec = job["metadata"]["name"], job["spec"]["template"]["spec"]
        owner = {"kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
        states: list[Json] = []
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            status, log = self._run(container, name)
            self.logs[name, container["name"]] = log
            ended = {"terminated": {"exitCode": status}}
            states.append({"name": container["name"], "state": ended})
            if status:
                break
        if job not in list(self.objects.values()):
            return
        self.add(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": job["metadata"]["namespace"],
                    "labels": {"batch.kubernetes.io/job-name": name},
                    "ownerReferences": [owner],
                },
                "status": {
                    "phase": "Failed" if status else "Succeeded",
                    "containerStatuses": states,
                },
            }
        )
        condition = {"type": "Failed" if status else "Complete", "status": "True"}
        job["status"] = {"conditions": [condition]}


def merged(old: Json, new: Json) -> Json:
    """Apply a merge patch without deletions."""
    changed = {
        k: merged(old[k], v) if isinstance(v, dict) and isinstance(old.get(k), dict) else v
        for k, v in new.items()
    }
    return {**old, **changed}


@contextmanager
def serve(run: Run, kubeconfig: Path) -> Iterator[Cluster]:
    """Serve an empty cluster; its address is written to a kubeconfig file."""
    cluster = Cluster(run)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            version = url.path.partition("/")[2].partition("/")[2]
            if version in PLURALS:
                kinds = PLURALS[version].items()
                listed = [{"kind": k, "name": p, "namespaced": True} for k, p in kinds]
                self.answer({"resources": listed})
            elif url.path.endswith("/log"):
                pod = url.path.split("/")[-2]
                self.answer(cluster.logs.get((pod, asked["container"]), ""))
            elif url.path in cluster.objects:
                self.answer(cluster.objects[url.path])
            elif url.path.split("/")[-1] in {p for k in PLURALS.values() for p in k.values()}:
                root, _, plural = url.path.rpartition("/")  # Without a namespace: of all.
                below = [
                    t
                    for path, t in list(cluster.objects.items())
                    if path.startswith(root) and path.split("/")[-2] == plural
                ]
                selector = re.sub(r"[^,]+ in \([^)]*\)", "", asked.get("labelSelector", ""))
                wanted = dict(s.split("=") for s in selector.split(",") if s)
                found = [
                    t for t in below if wanted.items() <= t["metadata"].get("labels", {}).items()
                ]
                self.answer({"items": found, "metadata": {}})
            else:
                self.answer({"kind": "Status", "code": 404, "reason": "NotFound"}, 404)

        def do_PATCH(self) -> None:
            change = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found = cluster.objects.get(self.path.partition("?")[0])
            if found is None:
                self.answer({"kind": "Status", "code": 404, "reason": "NotFound"}, 404)
                return
            version = found["metadata"]["resourceVersion"]
            if change.get("metadata", {}).get("resourceVersion", version) != version:
                self.answer({"kind": "Status", "code": 409, "reason": "Conflict"}, 409)
                return
            changed = merged(found, change)
            cluster.add(changed)
            self.answer(changed)

        def do_POST(self) -> None:
            job = json.loads(self.rfile.read(int(self.headers["content-length"])))
            path = f"{self.path.partition('?')[0]}/{job['metadata']['name']}"
            if path in cluster.objects:
                self.answer({"kind": "Status", "code": 409, "reason": "AlreadyExists"}, 409)
                return
            if job["kind"] == "Pod" and not cluster.quota:
                message = "pods is forbidden: exceeded quota"
                self.answer({"kind": "Status", "code": 403, "message": message}, 403)
                return
            if job["kind"] != "Job":
                if job["kind"] == "Pod":
                    ready = {"type": "Ready", "status": str(cluster.is_ready)}
                    job["status"] = {"phase": "Running", "conditions": [ready]}
                    cluster.logs[job["metadata"]["name"], "main"] = cluster.output
                cluster.add(job)
                self.answer(job, 201)
                return
            spec = job["spec"]["template"]["spec"]
            names = [c["name"] for c in (*spec.get("initContainers", ()), *spec["containers"])]
            if len(names) != len(set(names)) or max(map(len, names)) > 63:
                message = f"Invalid names of containers: {names}"
                self.answer({"kind": "Status", "code": 422, "message": message}, 422)
                return
            cluster.start(job)
            self.answer(job, 201)

        def do_DELETE(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            uid = json.loads(body or "{}").get("preconditions", {}).get("uid")
            found = cluster.objects.get(self.path)
            if found is not None and uid not in (None, found["metadata"]["uid"]):
                self.answer({"kind": "Status", "code": 409, "reason": "Conflict"}, 409)
                return
            self.answer(cluster.delete(self.path))

        def answer(self, content: Json | str, status: int = 200) -> None:
            body = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever).start()
    address = f"http://127.0.0.1:{server.server_port}"
    name = "kind-shop"
    config = {
        "clusters": [{"name": name, "cluster": {"server": address}}],
        "users": [{"name": name, "user": {}}],
        "contexts": [
            {"name": "kind-shop", "context": {"cluster": "kind-shop", "user": "kind-shop"}}
        ],
        "current-context": name,
    }
    kubeconfig.write_text(json.dumps(config))
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
