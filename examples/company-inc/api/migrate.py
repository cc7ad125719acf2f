"""Prepare the database for this release: `python migrate.py`, with DB_URL set.

Lapwing runs it as a job before every switch. It may run again at any time, and while the release
before is serving: migrations only add.
"""

from __future__ import annotations

import os
import sys

from store import StoreError, open_store


def main() -> int:
    """Migrate the store of DB_URL; the exit status is 1 if that fails."""
    try:
        store = open_store(os.environ.get("DB_URL", ""))
        store.migrate()
        store.check()
        store.close()
    except StoreError as error:
        print(f"migrate: {error}", file=sys.stderr)
        return 1
    print("migrate: the database is ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
