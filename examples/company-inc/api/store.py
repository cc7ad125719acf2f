"""Where customers are kept: one interface, two stores.

A `Store` is chosen by DB_URL, so the same program runs on a laptop and against a cluster:

    embedded:///abs/folder        an SQLite file in that folder; nothing to install
    mongodb://host:port/name      a server that speaks MongoDB's protocol

Several processes, and during a deployment two releases, use one store at the same time. So:

- every write names the version it was made from, and loses if somebody was faster;
- every write raises one change counter, which is all that the live view has to look at;
- migrations only add (migrate.py), so that the release before still works.

Both stores search and sort by the same prepared text (`customers.search_text`), so they agree on
case and accents, and one suite of tests (tests/test_store.py) runs on both.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

from customers import Fields

Sort = Literal["name", "-name", "updated", "-updated"]
SORTS: tuple[Sort, ...] = ("name", "-name", "updated", "-updated")


@dataclass(frozen=True, slots=True)
class Customer:
    """A stored customer. `version` counts its writes from 1; `updated` is UTC in ISO 8601;
    `updated_by` is the name the visitor gave, or empty."""

    id: str
    fields: Fields
    version: int
    updated: str
    updated_by: str

    def as_json(self) -> dict[str, Any]:
        """What the API sends."""
        return {
            "id": self.id,
            **self.fields.as_dict(),
            "version": self.version,
            "updated": self.updated,
            "updated_by": self.updated_by,
        }


@dataclass(frozen=True, slots=True)
class Query:
    """Which customers to list. `page` counts from 1; `search` and `status` may be empty."""

    search: str = ""
    status: str = ""
    sort: Sort = "name"
    page: int = 1
    size: int = 25


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, and how many there are on all pages."""

    items: list[Customer]
    total: int


class StoreError(Exception):
    """The store cannot answer. The message is for people and holds no address or password."""


class NotMigratedError(StoreError):
    """The store lacks what this release needs."""

    def __init__(self) -> None:
        super().__init__("The database is not prepared. Run: python migrate.py")


class EmailTakenError(Exception):
    """Another customer has this e-mail address."""


class MissingError(Exception):
    """There is no such customer (any more)."""


class OutdatedError(Exception):
    """Somebody else wrote first; `current` is what is stored now."""

    def __init__(self, current: Customer) -> None:
        super().__init__(current.id)
        self.current = current


class Store(Protocol):
    """What the API asks of a store. Every method may raise StoreError."""

    def migrate(self) -> None:
        """Prepare the store for this release. Safe to repeat, and while others use it."""

    def check(self) -> None:
        """Return if the store answers and is migrated; raises StoreError if not."""

    def changes(self) -> int:
        """A number that grows with every write. Cheap: it is asked several times a second."""

    def list(self, query: Query) -> Page:
        """One page of customers."""

    def every(self) -> Iterator[Customer]:
        """All customers in the order of their ids, read bit by bit."""

    def get(self, customer_id: str) -> Customer:
        """One customer. Raises MissingError."""

    def create(self, fields: Fields, by: str) -> Customer:
        """Store a new customer. Raises EmailTakenError."""

    def create_many(self, rows: Iterable[Fields], by: str) -> int:
        """Store new customers, leaving out those whose e-mail is there; returns how many."""

    def update(self, customer_id: str, version: int, fields: Fields, by: str) -> Customer:
        """Replace the fields of a version. Raises MissingError, OutdatedError, EmailTakenError."""

    def delete(self, customer_id: str, version: int) -> None:
        """Remove a version. Raises MissingError, OutdatedError."""

    def close(self) -> None:
        """Give back files and connections."""


def open_store(url: str) -> Store:
    """The store that a DB_URL names. Does not connect yet. Raises StoreError for a URL that is
    not one of the two kinds."""
    parts = urlsplit(url)
    if parts.scheme == "embedded" and parts.path:
        from embedded import EmbeddedStore

        return EmbeddedStore(unquote(parts.path))
    if parts.scheme in ("mongodb", "mongodb+srv"):
        from mongo import MongoStore

        return MongoStore(url)
    raise StoreError("DB_URL must be embedded:///folder or mongodb://host/name.")


def new_id() -> str:
    """An id that cannot be guessed or repeated."""
    return secrets.token_hex(8)


def now() -> str:
    """The time, as it is stored: UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
