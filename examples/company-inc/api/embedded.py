"""The embedded store: one SQLite file, for a machine without a database server.

Write-ahead logging lets readers go on while one process writes; writers wait for each other up to
`BUSY` seconds. `synchronous=FULL`, so what was answered with 201 survives a power cut. Every
thread has its own connection, because SQLite's transactions belong to a connection.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from customers import Fields, fold, search_text
from store import (
    Customer,
    EmailTakenError,
    MissingError,
    NotMigratedError,
    OutdatedError,
    Page,
    Query,
    StoreError,
    new_id,
    now,
)

BUSY = 10.0

# Each entry brings the file from its index to the next version (PRAGMA user_version). Only add:
# during a deployment the release before works on the same file.
MIGRATIONS = (
    """
    CREATE TABLE customer (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE,
        company TEXT NOT NULL, status TEXT NOT NULL, note TEXT NOT NULL,
        version INTEGER NOT NULL, updated TEXT NOT NULL, updated_by TEXT NOT NULL,
        name_folded TEXT NOT NULL, search TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX customer_by_name ON customer (name_folded, id);
    CREATE INDEX customer_by_update ON customer (updated, id);
    CREATE TABLE change (only INTEGER PRIMARY KEY CHECK (only = 1), counter INTEGER NOT NULL);
    INSERT INTO change VALUES (1, 0);
    """,
)
_ORDER = {
    "name": "name_folded, id",
    "-name": "name_folded DESC, id DESC",
    "updated": "updated, id",
    "-updated": "updated DESC, id DESC",
}
_COLUMNS = "id, name, email, company, status, note, version, updated, updated_by"
_INSERT = f"INSERT INTO customer ({_COLUMNS}, name_folded, search) VALUES (?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608 - constants only


class EmbeddedStore:
    """Customers in `folder`/customers.sqlite3."""

    def __init__(self, folder: str) -> None:
        self.file = Path(folder) / "customers.sqlite3"
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    def migrate(self) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(
                f"The folder of the database cannot be made: {error.strerror}."
            ) from None
        with self._transaction(create=True) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            for number, script in enumerate(MIGRATIONS[version:], version + 1):
                for statement in script.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number:d}")

    def check(self) -> None:
        with self._errors():
            (version,) = self._connection().execute("PRAGMA user_version").fetchone()
        if version < len(MIGRATIONS):
            raise NotMigratedError

    def changes(self) -> int:
        with self._errors():
            (counter,) = self._connection().execute("SELECT counter FROM change").fetchone()
        return int(counter)

    def list(self, query: Query) -> Page:
        where = "(? = '' OR instr(search, ?)) AND (? = '' OR status = ?)"
        needle = fold(query.search)
        values = (needle, needle, query.status, query.status)
        offset = (query.page - 1) * query.size
        with self._errors():
            db = self._connection()
            (total,) = db.execute(
                f"SELECT count(*) FROM customer WHERE {where}",  # noqa: S608 - constants only
                values,
            ).fetchone()
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM customer WHERE {where} "  # noqa: S608 - constants only
                f"ORDER BY {_ORDER[query.sort]} LIMIT ? OFFSET ?",
                (*values, query.size, offset),
            ).fetchall()
        return Page([_customer(row) for row in rows], total)

    def every(self) -> Iterator[Customer]:
        last = ""
        while True:
            with self._errors():
                rows = (
                    self._connection()
                    .execute(
                        f"SELECT {_COLUMNS} FROM customer WHERE id > ? ORDER BY id LIMIT 200",  # noqa: S608 - constants only
                        (last,),
                    )
                    .fetchall()
                )
            if not rows:
                return
            yield from map(_customer, rows)
            last = rows[-1][0]

    def get(self, customer_id: str) -> Customer:
        with self._errors():
            return self._get(self._connection(), customer_id)

    def create(self, fields: Fields, by: str) -> Customer:
        customer = Customer(new_id(), fields, 1, now(), by)
        with self._transaction() as db:
            self._check_email(db, fields.email)
            db.execute(_INSERT, _row(customer))
            self._count(db)
        return customer

    def create_many(self, rows: Iterable[Fields], by: str) -> int:
        made = 0
        with self._transaction() as db:
            for fields in rows:
                customer = Customer(new_id(), fields, 1, now(), by)
                made += db.execute(
                    _INSERT + " ON CONFLICT (email) DO NOTHING", _row(customer)
                ).rowcount
            if made:
                self._count(db)
        return made

    def update(self, customer_id: str, version: int, fields: Fields, by: str) -> Customer:
        with self._transaction() as db:
            self._current(db, customer_id, version)
            self._check_email(db, fields.email, but=customer_id)
            customer = Customer(customer_id, fields, version + 1, now(), by)
            names = f"{_COLUMNS}, name_folded, search".split(", ")
            changed = ", ".join(f"{name} = ?" for name in names)
            db.execute(
                f"UPDATE customer SET {changed} WHERE id = ?",  # noqa: S608 - constants only
                (*_row(customer), customer_id),
            )
            self._count(db)
        return customer

    def delete(self, customer_id: str, version: int) -> None:
        with self._transaction() as db:
            self._current(db, customer_id, version)
            db.execute("DELETE FROM customer WHERE id = ?", (customer_id,))
            self._count(db)

    def close(self) -> None:
        with self._lock:
            while self._open:
                self._open.pop().close()
        self._local = threading.local()

    @staticmethod
    def _get(db: sqlite3.Connection, customer_id: str) -> Customer:
        row = db.execute(
            f"SELECT {_COLUMNS} FROM customer WHERE id = ?",  # noqa: S608 - constants only
            (customer_id,),
        ).fetchone()
        if row is None:
            raise MissingError(customer_id)
        return _customer(row)

    def _current(self, db: sqlite3.Connection, customer_id: str, version: int) -> None:
        current = self._get(db, customer_id)
        if current.version != version:
            raise OutdatedError(current)

    @staticmethod
    def _check_email(db: sqlite3.Connection, email: str, but: str = "") -> None:
        found = db.execute("SELECT 1 FROM customer WHERE email = ? AND id <> ?", (email, but))
        if found.fetchone():
            raise EmailTakenError(email)

    @staticmethod
    def _count(db: sqlite3.Connection) -> None:
        db.execute("UPDATE change SET counter = counter + 1")

    def _connection(self, create: bool = False) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            mode = "rwc" if create else "rw"
            db = sqlite3.connect(
                f"{self.file.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=BUSY,
                isolation_level=None,
                check_same_thread=False,  # only so that close() may close it
            )
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            self._local.db = db
            with self._lock:
                self._open.append(db)
        return db

    @contextmanager
    def _transaction(self, create: bool = False) -> Iterator[sqlite3.Connection]:
        """A write: all of the block or nothing. IMMEDIATE, so it waits for its turn at the start
        and never has to be repeated."""
        with self._errors():
            db = self._connection(create)
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's errors, as a StoreError that says what to do and no path."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if not self.file.exists() or "no such table" in str(error):
                raise NotMigratedError from error
            raise StoreError(f"The database does not answer: {error}.") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(f"The database cannot be used: {error}.") from error


def _customer(row: tuple[str, str, str, str, str, str, int, str, str]) -> Customer:
    return Customer(row[0], Fields(*row[1:6]), *row[6:])


def _row(customer: Customer) -> tuple[str | int, ...]:
    fields = customer.fields
    return (
        customer.id,
        *fields.as_dict().values(),
        customer.version,
        customer.updated,
        customer.updated_by,
        fold(fields.name),
        search_text(fields),
    )
