"""The HTTP interface, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from api import MAX_BODY, create_app
from flask import Flask
from flask.testing import FlaskClient
from live import FullError, Live

ADA = {"name": "Ada", "email": "ada@example.com", "status": "active"}


def match(version: int) -> dict[str, str]:
    return {"If-Match": f'"{version}"'}


def test_a_customer_from_beginning_to_end(client: FlaskClient) -> None:
    made = client.post("/api/customers", json=ADA)
    assert made.status_code == 201
    where = made.headers["Location"]
    assert client.get(where).get_json() == made.get_json()
    assert client.get(where).headers["ETag"] == '"1"'
    changed = client.put(where, json={**ADA, "name": "Ada L."}, headers=match(1))
    assert (changed.get_json()["name"], changed.get_json()["version"]) == ("Ada L.", 2)
    assert client.get("/api/customers?q=l.&status=active").get_json()["total"] == 1
    assert client.delete(where, headers=match(2)).status_code == 204
    assert client.get(where).status_code == 404


def test_wrong_values_are_named_by_field(client: FlaskClient) -> None:
    answer = client.post("/api/customers", json={"name": "", "email": "x"})
    assert answer.status_code == 422
    assert answer.mimetype == "application/problem+json"
    assert sorted(answer.get_json()["errors"]) == ["email", "name"]


def test_a_taken_address_is_the_fault_of_the_field(client: FlaskClient) -> None:
    client.post("/api/customers", json=ADA)
    answer = client.post("/api/customers", json={**ADA, "name": "Eve"})
    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["email"])


def test_the_second_editor_is_told_what_the_first_wrote(client: FlaskClient) -> None:
    where = client.post("/api/customers", json=ADA).headers["Location"]
    client.put(where, json={**ADA, "company": "Engines"}, headers=match(1))
    answer = client.put(where, json={**ADA, "company": "Looms"}, headers=match(1))
    assert answer.status_code == 412
    assert answer.get_json()["current"]["company"] == "Engines"
    assert client.get(where).get_json()["company"] == "Engines"


@pytest.mark.parametrize("tag", ['"x"', "*", '"1", "2"', '"99999999999999999999"', 'W/"1"'])
def test_a_version_that_is_none_changes_nothing(client: FlaskClient, tag: str) -> None:
    where = client.post("/api/customers", json=ADA).headers["Location"]
    assert client.delete(where, headers={"If-Match": tag}).status_code in (412, 428)
    assert client.get(where).status_code == 200


def test_a_write_without_a_version_is_refused(client: FlaskClient) -> None:
    where = client.post("/api/customers", json=ADA).headers["Location"]
    assert client.put(where, json=ADA).status_code == 428
    assert client.delete(where).status_code == 428


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "page=²", "size=101", "sort=shoe", "status=x", "q=" + "x" * 201]
)
def test_a_list_refuses_what_it_does_not_know(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/api/customers?{query}")
    assert (answer.status_code, list(answer.get_json()["errors"])) == (
        422,
        [query.partition("=")[0]],
    )


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b" " * (MAX_BODY + 1), "application/json", 413),
    ],
)
def test_a_body_that_cannot_be_used_is_a_problem(
    client: FlaskClient, body: bytes, kind: str, status: int
) -> None:
    answer = client.post("/api/customers", data=body, content_type=kind)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")


def test_unknown_paths_and_methods_are_problems(client: FlaskClient) -> None:
    assert client.get("/api/shoes").get_json()["status"] == 404
    answer = client.delete("/api/customers")
    assert answer.get_json()["status"] == 405
    assert "POST" in answer.headers["Allow"]


def test_a_file_goes_in_and_comes_out(client: FlaskClient) -> None:
    client.post("/api/customers", json=ADA)
    file = "name,email\nAda,ada@example.com\nBob,bob@example.com\n,x\n"
    counts = client.post("/api/customers/import", data=file, content_type="text/csv").get_json()
    assert (counts["created"], counts["skipped"], counts["rejected"]) == (1, 1, 1)
    assert counts["problems"][0]["line"] == 4
    exported = client.get("/api/customers/export")
    assert exported.mimetype == "text/csv"
    assert exported.text.count("\n") == 3
    assert client.post("/api/customers/import", data=b"\xff").status_code == 422


def test_the_visitor_is_remembered_and_named(client: FlaskClient) -> None:
    assert client.get("/api/session").get_json() == {"name": "", "available": True}
    client.put("/api/session", json={"name": " Grace "})
    assert client.post("/api/customers", json=ADA).get_json()["updated_by"] == "Grace"
    assert client.put("/api/session", json={"name": "x" * 61}).status_code == 422


def test_the_cookie_is_for_https_where_there_is_https(client: FlaskClient) -> None:
    for scheme, secure in (("https", True), ("http", False)):
        answer = client.put("/api/session", json={"name": "G"}, base_url=f"{scheme}://localhost")
        cookie = answer.headers["Set-Cookie"]
        assert ("Secure" in cookie) == secure
        assert "HttpOnly" in cookie


def test_without_a_key_the_app_works_and_says_so(tmp_path: Path) -> None:
    app = create_app({"DB_URL": f"embedded://{tmp_path}"})
    app.extensions["store"].migrate()
    client = app.test_client()
    assert client.get("/api/session").get_json()["available"] is False
    assert client.put("/api/session", json={"name": "x"}).status_code == 503
    assert client.post("/api/customers", json=ADA).status_code == 201


def test_health_follows_the_store(tmp_path: Path) -> None:
    app = create_app({"DB_URL": f"embedded://{tmp_path}/db"})
    client = app.test_client()
    sick = client.get("/api/healthz")
    assert (sick.status_code, sick.headers["Retry-After"]) == (503, "2")
    assert str(tmp_path) not in sick.text
    app.extensions["store"].migrate()
    assert client.get("/api/healthz").status_code == 200


def test_the_release_is_named(client: FlaskClient) -> None:
    answer = client.get("/api/version")
    assert answer.get_json() == {"release": "api-test", "revision": ""}
    assert answer.headers["X-Release"] == "api-test"


def test_an_unexpected_error_tells_a_client_nothing(app: Flask) -> None:
    app.extensions["store"].list = lambda _: 1 / 0
    answer = app.test_client().get("/api/customers")
    assert (answer.status_code, answer.mimetype) == (500, "application/problem+json")
    assert "division" not in answer.text


def test_a_stream_tells_of_changes_and_ends_with_the_process() -> None:
    counter = [5]
    live = Live(lambda: counter[0])
    stream = live.open(seen=3)
    assert "retry" in next(stream)
    assert "event: change" in next(stream), "it has missed something"
    counter[0] = 6
    assert "id: 6\nevent: change" in next(stream)
    live.closing = lambda: True
    assert list(stream) == []


def test_a_stream_ends_at_its_age() -> None:
    events = list(Live(lambda: 1).open(None, max_age=0.3))
    assert "event: hello" in events[1]


def test_streams_are_limited_and_give_their_place_back() -> None:
    live = Live(lambda: 1)
    live.limit = 1
    stream = live.open(None)
    with pytest.raises(FullError):
        live.open(None)
    stream.close()  # type: ignore[attr-defined]
    stream.close()  # type: ignore[attr-defined]
    live.open(None)
    with pytest.raises(FullError):
        live.open(None)


def test_too_many_live_views_are_asked_to_come_later(app: Flask) -> None:
    app.extensions["live"].limit = 0
    answer = app.test_client().get("/api/events")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
