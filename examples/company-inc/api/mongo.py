"""The MongoDB store: any server that speaks its protocol (MongoDB 5 and later, Atlas, FerretDB).

No transactions across documents, since a single server and FerretDB have none: a write and the
change counter are two steps. A process that dies between them loses nothing that was stored; open
pages only hear of it with the next change. Versions are compared by the server, in the filter of
the write itself; FerretDB 1 does that in two steps, so between two writers in one moment only a
MongoDB decides. Only the operators that FerretDB 1.24 knows are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from customers import COLUMNS, Fields, fold, search_text
from pymongo import ASCENDING, DESCENDING, MongoClient
from pymongo.errors import BulkWriteError, ConfigurationError, DuplicateKeyError, PyMongoError
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

TIMEOUT_MS = 5000
SCHEMA = 1
_ORDER = {
    "name": [("name_folded", ASCENDING), ("_id", ASCENDING)],
    "-name": [("name_folded", DESCENDING), ("_id", DESCENDING)],
    "updated": [("updated", ASCENDING), ("_id", ASCENDING)],
    "-updated": [("updated", DESCENDING), ("_id", DESCENDING)],
}
_DUPLICATE = 11000
Document = dict[str, Any]


class MongoStore:
    """Customers in the database that the URL names, or `company-inc` if it names none."""

    def __init__(self, url: str) -> None:
        try:
            self._client: MongoClient[Document] = MongoClient(
                url,
                serverSelectionTimeoutMS=TIMEOUT_MS,
                connectTimeoutMS=TIMEOUT_MS,
                connect=False,
                appname="company-inc",
            )
            database = self._client.get_default_database("company-inc")
        except (ConfigurationError, PyMongoError, ValueError):
            raise StoreError("DB_URL is not a valid MongoDB address.") from None
        self._customers = database["customers"]
        self._meta = database["meta"]

    def migrate(self) -> None:
        with _errors():
            self._customers.create_index("email", unique=True)
            self._customers.create_index([("name_folded", ASCENDING)])
            self._customers.create_index([("updated", ASCENDING)])
            self._meta.update_one({"_id": "changes"}, {"$inc": {"counter": 0}}, upsert=True)
            self._meta.update_one({"_id": "schema"}, {"$max": {"version": SCHEMA}}, upsert=True)

    def check(self) -> None:
        with _errors():
            schema = self._meta.find_one({"_id": "schema"})
        if schema is None or schema["version"] < SCHEMA:
            raise NotMigratedError

    def changes(self) -> int:
        with _errors():
            found = self._meta.find_one({"_id": "changes"})
        return int(found["counter"]) if found else 0

    def list(self, query: Query) -> Page:
        where: Document = {}
        if query.search:
            where["search"] = {"$regex": re.escape(fold(query.search))}
        if query.status:
            where["status"] = query.status
        with _errors():
            total = self._customers.count_documents(where)
            found = list(
                self._customers.find(where)
                .sort(_ORDER[query.sort])
                .skip((query.page - 1) * query.size)
                .limit(query.size)
            )
        return Page([_customer(document) for document in found], total)

    def every(self) -> Iterator[Customer]:
        with _errors():
            for document in self._customers.find({}).sort("_id", ASCENDING).batch_size(200):
                yield _customer(document)

    def get(self, customer_id: str) -> Customer:
        with _errors():
            found = self._customers.find_one({"_id": customer_id})
        if found is None:
            raise MissingError(customer_id)
        return _customer(found)

    def create(self, fields: Fields, by: str) -> Customer:
        customer = Customer(new_id(), fields, 1, now(), by)
        with _errors():
            self._customers.insert_one({"_id": customer.id, **_document(customer)})
            self._count()
        return customer

    def create_many(self, rows: Iterable[Fields], by: str) -> int:
        customers = [Customer(new_id(), fields, 1, now(), by) for fields in rows]
        if not customers:
            return 0
        documents = [{"_id": c.id, **_document(c)} for c in customers]
        with _errors():
            try:
                made = len(self._customers.insert_many(documents, ordered=False).inserted_ids)
            except BulkWriteError as error:
                if any(e["code"] != _DUPLICATE for e in error.details["writeErrors"]):
                    raise
                made = int(error.details["nInserted"])
            if made:
                self._count()
        return made

    def update(self, customer_id: str, version: int, fields: Fields, by: str) -> Customer:
        customer = Customer(customer_id, fields, version + 1, now(), by)
        with _errors():
            done = self._customers.update_one(
                {"_id": customer_id, "version": version}, {"$set": _document(customer)}
            )
            if done.matched_count == 0:
                raise OutdatedError(self.get(customer_id))
            self._count()
        return customer

    def delete(self, customer_id: str, version: int) -> None:
        with _errors():
            done = self._customers.delete_one({"_id": customer_id, "version": version})
            if done.deleted_count == 0:
                raise OutdatedError(self.get(customer_id))
            self._count()

    def close(self) -> None:
        self._client.close()

    def _count(self) -> None:
        self._meta.update_one({"_id": "changes"}, {"$inc": {"counter": 1}}, upsert=True)


@contextmanager
def _errors() -> Iterator[None]:
    """The driver's errors, as ours. Its texts hold host names, so they go to the log only
    (as the cause), never to a client."""
    try:
        yield
    except DuplicateKeyError:
        raise EmailTakenError from None
    except PyMongoError as error:
        if "UNIQUE constraint failed" in str(error):  # FerretDB 1.24 for an update
            raise EmailTakenError from None
        raise StoreError("The database does not answer.") from error


def _customer(found: Document) -> Customer:
    fields = Fields(*(found[name] for name in COLUMNS))
    return Customer(found["_id"], fields, found["version"], found["updated"], found["updated_by"])


def _document(customer: Customer) -> Document:
    return {
        **customer.fields.as_dict(),
        "version": customer.version,
        "updated": customer.updated,
        "updated_by": customer.updated_by,
        "name_folded": fold(customer.fields.name),
        "search": search_text(customer.fields),
    }
