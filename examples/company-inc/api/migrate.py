"""Prepare the database for this release: `python migrate.py`, with DB_URL set.

A new database gets the customers of `customers.csv`; one that was ever written to stays as it is.

Lapwing runs it as a job before every switch. It may run again at any time, and while the release
before is serving: migrations only add.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from customers import InvalidError, read_csv
from store import Store, StoreError, open_store

SEED = Path(__file__).with_name("customers.csv")


def main() -> int:
    """Migrate the store of DB_URL; the exit status is 1 if that fails."""
    try:
        store = open_store(os.environ.get("DB_URL", ""))
        store.migrate()
        store.check()
        seed(store)
        store.close()
    except StoreError as error:
        print(f"migrate: {error}", file=sys.stderr)
        return 1
    print("migrate: the database is ready")
    return 0


def seed(store: Store) -> None:
    """Add the first customers to a database that was never written to."""
    if store.changes() == 0:
        rows = (row for _, row in read_csv(SEED.read_text(encoding="utf-8")))
        count = store.create_many([r for r in rows if not isinstance(r, InvalidError)], "migrate")
        print(f"migrate: added {count} customers")


if __name__ == "__main__":
    sys.exit(main())
