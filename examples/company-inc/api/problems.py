"""Errors, in the one shape that every client can count on: problem details (RFC 9457).

    {"type": "about:blank", "title": "Precondition Failed", "status": 412,
     "detail": "...for people...", "errors": {"email": "..."}, "current": {...}}

`errors` says for each field what is wrong with it; `current` is what is stored now, when somebody
else wrote first. What a client is told never holds an address, a query or a traceback: those go
to the log.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from customers import InvalidError
from flask import Flask, Response, current_app, json
from store import EmailTakenError, MissingError, OutdatedError, StoreError
from werkzeug.exceptions import HTTPException


def problem(status: int, detail: str, **more: Any) -> Response:
    """One problem as a response; `more` are members beside the standard ones."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **more,
    }
    return Response(json.dumps(body), status, mimetype="application/problem+json")


def register(app: Flask) -> None:
    """Turn every exception of the app into a problem."""

    @app.errorhandler(InvalidError)
    def invalid(error: InvalidError) -> Response:
        return problem(422, "Some values are not allowed.", errors=error.errors)

    @app.errorhandler(EmailTakenError)
    def taken(_: EmailTakenError) -> Response:
        errors = {"email": "Another customer has this address."}
        return problem(422, "Some values are not allowed.", errors=errors)

    @app.errorhandler(MissingError)
    def missing(_: MissingError) -> Response:
        return problem(404, "There is no such customer. Somebody may have deleted it.")

    @app.errorhandler(OutdatedError)
    def outdated(error: OutdatedError) -> Response:
        detail = "Somebody else has changed this customer since you opened it."
        return problem(412, detail, current=error.current.as_json())

    @app.errorhandler(StoreError)
    def unavailable(error: StoreError) -> Response:
        current_app.logger.error("%s", error, exc_info=error.__cause__)
        response = problem(503, str(error))
        response.headers["Retry-After"] = "2"
        return response

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        response = problem(error.code or 500, error.description or error.name)
        for name, value in error.get_headers():
            if name not in ("Content-Type", "Content-Length"):
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        current_app.logger.error("unexpected error", exc_info=error)
        return problem(500, "Something went wrong here. It has been written to the log.")
