"""What every store has to do. Each test runs on SQLite and on a MongoDB server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from customers import Fields
from store import (
    EmailTakenError,
    MissingError,
    NotMigratedError,
    OutdatedError,
    Query,
    Store,
    StoreError,
    open_store,
)


def fields(name: str, **more: str) -> Fields:
    values = {"email": f"{name.lower()}@x.org", "company": "", "status": "lead", "note": "", **more}
    return Fields(name=name, **values)


def names(store: Store, query: Query) -> list[str]:
    return [c.fields.name for c in store.list(query).items]


def test_an_unprepared_store_says_what_to_do(db_url: str) -> None:
    store = open_store(db_url)
    with pytest.raises(NotMigratedError, match=r"migrate\.py"):
        store.check()
    store.migrate()
    store.check()
    store.close()


def test_migrating_again_keeps_everything(store: Store, db_url: str) -> None:
    made = store.create(fields("Ada"), "me")
    other = open_store(db_url)
    other.migrate()
    assert other.get(made.id) == made
    other.close()


def test_what_is_stored_can_be_read(store: Store) -> None:
    made = store.create(fields("Ada", note="first\nsecond"), "me")
    assert (made.version, made.updated_by) == (1, "me")
    assert store.get(made.id) == made


def test_an_email_belongs_to_one_customer(store: Store) -> None:
    store.create(fields("Ada"), "")
    bob = store.create(fields("Bob"), "")
    with pytest.raises(EmailTakenError):
        store.create(fields("Eve", email="ada@x.org"), "")
    with pytest.raises(EmailTakenError):
        store.update(bob.id, 1, fields("Bob", email="ada@x.org"), "")
    assert store.get(bob.id) == bob


def test_a_write_from_an_old_version_is_refused(store: Store) -> None:
    made = store.create(fields("Ada"), "")
    newer = store.update(made.id, 1, fields("Ada", company="Engines"), "first")
    assert newer.version == 2
    with pytest.raises(OutdatedError) as caught:
        store.update(made.id, 1, fields("Ada", company="Looms"), "second")
    assert caught.value.current == newer
    with pytest.raises(OutdatedError):
        store.delete(made.id, 1)
    assert store.get(made.id) == newer


def test_of_many_editors_at_once_one_wins(store: Store, db_url: str, compares: bool) -> None:
    if not compares:
        pytest.skip("needs a server that compares and writes in one step; FerretDB 1 does not")
    made = store.create(fields("Ada"), "")
    other = open_store(db_url)  # as another process would

    def edit(number: int) -> bool:
        try:
            (store, other)[number % 2].update(made.id, 1, fields("Ada"), str(number))
        except OutdatedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        wins = sum(pool.map(edit, range(16)))
    assert (wins, store.get(made.id).version) == (1, 2)
    other.close()


def test_a_deleted_customer_is_gone(store: Store) -> None:
    made = store.create(fields("Ada"), "")
    store.delete(made.id, 1)
    with pytest.raises(MissingError):
        store.get(made.id)
    with pytest.raises(MissingError):
        store.update(made.id, 1, fields("Ada"), "")
    with pytest.raises(MissingError):
        store.delete(made.id, 1)
    store.create(fields("Ada"), "")  # the address is free again


def test_lists_are_searched_sorted_and_paged(store: Store) -> None:
    for name in ("bob", "Zoë", "Ada", "Émile"):
        store.create(fields(name, status="active" if name == "bob" else "lead"), "")
    assert names(store, Query()) == ["Ada", "bob", "Émile", "Zoë"]
    assert names(store, Query(sort="-name")) == ["Zoë", "Émile", "bob", "Ada"]
    assert names(store, Query(search="ZOE")) == ["Zoë"]
    assert names(store, Query(search="x.org")) == ["Ada", "bob", "Émile", "Zoë"]
    assert names(store, Query(search="xxorg")) == [], "a dot is a dot"
    assert names(store, Query(search="%")) == []
    assert names(store, Query(status="active")) == ["bob"]
    page = store.list(Query(page=2, size=3))
    assert ([c.fields.name for c in page.items], page.total) == (["Zoë"], 4)
    assert store.list(Query(page=9)).items == []


def test_the_last_change_comes_first(store: Store) -> None:
    ada = store.create(fields("Ada"), "")
    store.create(fields("Bob"), "")
    before = store.get(ada.id).updated
    while store.update(ada.id, ada.version, fields("Ada"), "").updated == before:
        ada = store.get(ada.id)  # the clock counts milliseconds
    listed = store.list(Query(sort="-updated")).items
    assert listed[0].updated >= listed[1].updated
    assert [c.id for c in reversed(listed)] == [
        c.id for c in store.list(Query(sort="updated")).items
    ]


def test_many_are_created_but_never_over_others(store: Store) -> None:
    kept = store.create(fields("Ada", company="Engines"), "")
    assert store.create_many([fields("Ada"), fields("Bob"), fields("Bob")], "") == 1
    assert store.create_many([], "") == 0
    assert store.get(kept.id) == kept
    assert store.list(Query()).total == 2


def test_every_customer_is_read_in_bits(store: Store) -> None:
    assert store.create_many((fields(f"N{n}") for n in range(450)), "") == 450
    ids = [c.id for c in store.every()]
    assert len(ids) == 450
    assert ids == sorted(set(ids))


def test_every_write_counts_as_a_change(store: Store, db_url: str) -> None:
    other = open_store(db_url)
    seen = [other.changes()]
    made = store.create(fields("Ada"), "")
    seen.append(other.changes())
    store.update(made.id, 1, fields("Ada"), "")
    seen.append(other.changes())
    store.delete(made.id, 2)
    seen.append(other.changes())
    store.create_many([fields("Bob")], "")
    seen.append(other.changes())
    assert seen == sorted(set(seen))
    with pytest.raises(MissingError):
        store.delete(made.id, 2)
    assert other.changes() == seen[-1]
    other.close()


@pytest.mark.parametrize("url", ["", "sqlite:///x", "embedded:", "mongodb://", "mongodb://h:x/y"])
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="DB_URL"):
        open_store(url)


def test_a_server_that_is_away_is_an_error_without_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mongo.TIMEOUT_MS", 50)
    store = open_store("mongodb://user:hidden@127.0.0.1:1/x")
    with pytest.raises(StoreError) as caught:
        store.check()
    assert "hidden" not in str(caught.value)
    assert "127" not in str(caught.value)
    store.close()
