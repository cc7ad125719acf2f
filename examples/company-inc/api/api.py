"""The HTTP interface: customers of Company Inc.

    GET    /api/customers            ?q= &status= &sort=name|-name|updated|-updated &page= &size=
    POST   /api/customers            create
    GET    /api/customers/<id>       with an ETag, the version
    PUT    /api/customers/<id>       replace; If-Match names the version it was made from
    DELETE /api/customers/<id>       likewise
    POST   /api/customers/import     a CSV file as the body
    GET    /api/customers/export     a CSV file, streamed
    GET    /api/events               server-sent events: "change" (live.py)
    GET    /api/session, PUT         who is at the keyboard: a name, not a login
    GET    /api/healthz              200 if the store answers and is migrated
    GET    /api/version              which release this is

DB_URL names the store (store.py); SESSION_KEY signs the cookie that holds the visitor's name.
LAPWING_RELEASE and LAPWING_REVISION are set by Lapwing; each response names the release in
X-Release.
"""

from __future__ import annotations

from collections.abc import Mapping

import problems
from customers import STATUSES, Fields, InvalidError, parse, read_csv, write_csv
from flask import Blueprint, Flask, Response, current_app, jsonify, request, session
from flask.sessions import SecureCookieSessionInterface
from live import FullError, Live
from store import SORTS, Customer, Query, Store, open_store
from werkzeug.exceptions import BadRequest, PreconditionRequired, ServiceUnavailable

MAX_BODY = 1024 * 1024
MAX_PAGE_SIZE = 100
REJECTED_SHOWN = 50

api = Blueprint("api", __name__, url_prefix="/api")


class _Sessions(SecureCookieSessionInterface):
    """A cookie that goes over HTTPS only, wherever the request came by HTTPS."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def create_app(environ: Mapping[str, str]) -> Flask:
    """The application. Raises StoreError if DB_URL names no store."""
    app = Flask(__name__)
    app.secret_key = environ.get("SESSION_KEY") or None
    app.config.update(
        MAX_CONTENT_LENGTH=MAX_BODY,
        SESSION_COOKIE_NAME="company_inc",
        SESSION_COOKIE_SAMESITE="Lax",
        RELEASE=environ.get("LAPWING_RELEASE", "development"),
        REVISION=environ.get("LAPWING_REVISION", ""),
    )
    app.session_interface = _Sessions()
    store = open_store(environ.get("DB_URL", ""))
    app.extensions["store"] = store
    app.extensions["live"] = Live(store.changes)
    app.register_blueprint(api)
    problems.register(app)

    @app.after_request
    def mark(response: Response) -> Response:
        response.headers["X-Release"] = app.config["RELEASE"]
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return app


def _store() -> Store:
    store: Store = current_app.extensions["store"]
    return store


@api.get("/customers")
def list_customers() -> Response:
    """One page of customers, and how many there are."""
    query = _query(request.args)
    page = _store().list(query)
    items = [customer.as_json() for customer in page.items]
    return jsonify(items=items, total=page.total, page=query.page, size=query.size)


@api.post("/customers")
def create_customer() -> tuple[Response, int]:
    """Create a customer; 422 says which fields are wrong."""
    customer = _store().create(_fields(), _visitor())
    response = _one(customer)
    response.headers["Location"] = f"/api/customers/{customer.id}"
    return response, 201


@api.get("/customers/<customer_id>")
def get_customer(customer_id: str) -> Response:
    """One customer, with its version as the ETag."""
    return _one(_store().get(customer_id))


@api.put("/customers/<customer_id>")
def update_customer(customer_id: str) -> Response:
    """Replace a customer; 412 if somebody else was faster."""
    version = _version()
    return _one(_store().update(customer_id, version, _fields(), _visitor()))


@api.delete("/customers/<customer_id>")
def delete_customer(customer_id: str) -> tuple[str, int]:
    """Delete a customer; 412 if somebody has changed it meanwhile."""
    _store().delete(customer_id, _version())
    return "", 204


@api.post("/customers/import")
def import_customers() -> Response:
    """Add customers from a CSV file. Those whose e-mail is known are left as they are; lines
    with errors are reported and left out."""
    try:
        text = request.get_data().decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidError({"file": "The file is not UTF-8 text."}) from None
    rows: list[Fields] = []
    rejected = []
    for line, row in read_csv(text):
        if isinstance(row, InvalidError):
            rejected.append({"line": line, "errors": row.errors})
        else:
            rows.append(row)
    created = _store().create_many(rows, _visitor())
    return jsonify(
        created=created,
        skipped=len(rows) - created,
        rejected=len(rejected),
        problems=rejected[:REJECTED_SHOWN],
    )


@api.get("/customers/export")
def export_customers() -> Response:
    """All customers as a CSV file, sent while it is read."""
    _store().check()
    rows = (customer.fields for customer in _store().every())
    disposition = 'attachment; filename="customers.csv"'
    return Response(
        write_csv(rows), mimetype="text/csv", headers={"Content-Disposition": disposition}
    )


@api.get("/events")
def events() -> Response:
    """The stream of changes."""
    seen = request.headers.get("Last-Event-ID", "")
    live: Live = current_app.extensions["live"]
    try:
        stream = live.open(int(seen) if seen.isascii() and seen.isdecimal() else None)
    except FullError:
        raise ServiceUnavailable("Too many live views are open.", retry_after=10) from None
    return Response(stream, mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})


@api.get("/session")
def get_session() -> Response:
    """The visitor's name, and whether it can be kept (SESSION_KEY is set)."""
    return jsonify(name=_visitor(), available=current_app.secret_key is not None)


@api.put("/session")
def put_session() -> Response:
    """Keep the visitor's name in a signed cookie; an empty name forgets it."""
    if current_app.secret_key is None:
        raise ServiceUnavailable("Names are not kept here: SESSION_KEY is not set.")
    name = _body().get("name", "")
    if not isinstance(name, str) or len(name) > 60 or not name.isprintable():
        raise InvalidError({"name": "At most 60 printable characters."})
    session.permanent = True
    session["name"] = name.strip()
    return get_session()


@api.get("/healthz")
def healthz() -> Response:
    """200 if requests can be served, 503 if not."""
    _store().check()
    return jsonify(status="ok")


@api.get("/version")
def version() -> Response:
    """Which release and revision answers."""
    config = current_app.config
    return jsonify(release=config["RELEASE"], revision=config["REVISION"])


def _query(values: Mapping[str, str]) -> Query:
    """What a list is asked for. Raises InvalidError."""
    errors = {}
    page, size = values.get("page", "1"), values.get("size", "25")
    sort, status, search = (
        values.get(k, d) for k, d in (("sort", "name"), ("status", ""), ("q", ""))
    )
    if not _within(page, 1_000_000):
        errors["page"] = "Must be a number from 1."
    if not _within(size, MAX_PAGE_SIZE):
        errors["size"] = f"Must be a number from 1 to {MAX_PAGE_SIZE}."
    if status and status not in STATUSES:
        errors["status"] = f"Must be one of {', '.join(STATUSES)}."
    if len(search) > 200:
        errors["q"] = "At most 200 characters."
    if sort not in SORTS or errors:
        if sort not in SORTS:
            errors["sort"] = f"Must be one of {', '.join(SORTS)}."
        raise InvalidError(errors)
    return Query(search.strip(), status, sort, int(page), int(size))


def _within(text: str, highest: int) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 9 and 1 <= int(text) <= highest


def _body() -> dict[str, object]:
    """The JSON object that a client sent."""
    body = request.get_json()
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    return body


def _fields() -> Fields:
    return parse(_body())


def _version() -> int:
    """The version that If-Match names."""
    if not request.if_match:
        raise PreconditionRequired('Send If-Match: "<version>" with the version you have read.')
    tags = request.if_match.as_set()
    tag = tags.pop() if len(tags) == 1 else ""
    return int(tag) if _within(tag, 99_999_999) else 0  # no customer has version 0


def _visitor() -> str:
    return str(session.get("name", ""))


def _one(customer: Customer) -> Response:
    response = jsonify(customer.as_json())
    response.set_etag(str(customer.version))
    return response
