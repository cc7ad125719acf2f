"""`migrate.py`: a new database gets the first customers, another one stays as it is."""

from __future__ import annotations

from pathlib import Path

import migrate
import pytest
from store import Query, open_store


def test_new_database_is_seeded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"embedded://{tmp_path}"
    monkeypatch.setenv("DB_URL", url)
    assert migrate.main() == 0
    store = open_store(url)
    page = store.list(Query())
    assert page.total == len(migrate.SEED.read_text().splitlines()) - 1
    for customer in page.items:
        store.delete(customer.id, customer.version)
    assert migrate.main() == 0
    assert store.list(Query()).total == 0
    store.close()
