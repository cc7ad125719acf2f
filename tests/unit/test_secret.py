"""The store of secrets: sealed, versioned, readable by one user, and silent about values."""

from __future__ import annotations

import stat
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lapwing.desired.secrets import KEPT_VERSIONS, SecretStore
from lapwing.errors import SecretError

WHERE = ("shop", "local")


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return SecretStore(tmp_path / "secrets")


def test_a_value_by_its_version(store: SecretStore) -> None:
    one = store.set(*WHERE, "KEY", "tiger ✓\nline")
    two = store.set(*WHERE, "KEY", "lion")
    assert store.get(*WHERE, "KEY", one) == "tiger ✓\nline"
    assert store.get(*WHERE, "KEY", two) == "lion"
    assert store.current(*WHERE) == {"KEY": two}
    assert [(n, v) for n, v, _ in store.listing(*WHERE)] == [("KEY", two)]


def test_the_same_value_has_the_same_version(store: SecretStore) -> None:
    one = store.set(*WHERE, "KEY", "tiger")
    other = store.set(*WHERE, "KEY", "lion")
    assert store.set(*WHERE, "KEY", "tiger") == one
    assert store.current(*WHERE) == {"KEY": one}
    assert store.get(*WHERE, "KEY", other) == "lion"
    assert store.set(*WHERE, "OTHER", "tiger") != one


def test_a_version_tells_nothing_about_the_value(tmp_path: Path) -> None:
    """The digest is keyed: another store has another version for the same value."""
    versions = {SecretStore(tmp_path / n).set(*WHERE, "KEY", "tiger") for n in ("a", "b")}
    assert len(versions) == 2


def test_environments_are_apart(store: SecretStore) -> None:
    version = store.set(*WHERE, "KEY", "tiger")
    assert store.current("shop", "staging") == {}
    assert store.current("mill", "local") == {}
    with pytest.raises(SecretError, match="not on this machine"):
        store.get("shop", "staging", "KEY", version)


def test_removed_secret_is_usable_again_with_the_same_value(store: SecretStore) -> None:
    version = store.set("shop", "staging", "KEY", "tiger")
    store.remove("shop", "staging", "KEY")
    with pytest.raises(SecretError) as missing:
        store.get("shop", "staging", "KEY", version)
    assert "secret KEY" in missing.value.message
    assert "`lapwing secret set KEY -e staging`" in (missing.value.hint or "")
    store.set("shop", "staging", "KEY", "lion")
    store.set("shop", "staging", "KEY", "tiger")
    assert store.get("shop", "staging", "KEY", version) == "tiger"


def test_only_the_user_can_read_it(store: SecretStore, tmp_path: Path) -> None:
    store.set(*WHERE, "KEY", "tiger")
    folder = tmp_path / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert {p.name for p in files} == {"key", "lock", "local.json"}
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}
    assert not any(b"tiger" in p.read_bytes() for p in files)


def test_old_versions_give_way(store: SecretStore) -> None:
    versions = [store.set(*WHERE, "KEY", f"value {n}") for n in range(KEPT_VERSIONS + 2)]
    for gone in versions[:2]:
        with pytest.raises(SecretError, match=r"lapwing secret set KEY|not on this machine"):
            store.get(*WHERE, "KEY", gone)
    assert [store.get(*WHERE, "KEY", v) for v in versions[2:]] == [
        f"value {n}" for n in range(2, KEPT_VERSIONS + 2)
    ]


def test_removal(store: SecretStore) -> None:
    version = store.set(*WHERE, "KEY", "tiger")
    assert store.remove(*WHERE, "KEY")
    assert not store.remove(*WHERE, "KEY")
    with pytest.raises(SecretError):
        store.get(*WHERE, "KEY", version)


def test_generated_values_differ(store: SecretStore) -> None:
    one, two = (store.get(*WHERE, n, store.generate(*WHERE, n)) for n in ("A", "B"))
    assert one != two
    assert len(one) >= 43


def test_a_generated_value_has_the_length_that_is_asked_for(store: SecretStore) -> None:
    value = store.get(*WHERE, "A", store.generate(*WHERE, "A", 32))
    assert len(value) == 32
    assert value.isalnum()


def _damage_key(folder: Path) -> None:
    (folder / "key").write_bytes(b"x" * 44 + b"=")


def _other_alphabet(folder: Path) -> None:
    (folder / "key").write_bytes(b"!" * 44)


def _other_key(folder: Path) -> None:
    (folder / "key").write_bytes(b"A" * 43 + b"=")


def _lose_key(folder: Path) -> None:
    (folder / "key").unlink()


def _damage_values(folder: Path) -> None:
    path = folder / "shop/local.json"
    path.write_bytes(path.read_bytes()[:-5])


def _replace_values(folder: Path) -> None:
    (folder / "shop/local.json").write_text("[]")


def _lose_current(folder: Path) -> None:
    (folder / "shop/local.json").write_text('{"KEY": {"current": "x", "values": {}}}')


@pytest.mark.parametrize(
    "damage",
    [
        _damage_key,
        _other_alphabet,
        _other_key,
        _lose_key,
        _damage_values,
        _replace_values,
        _lose_current,
    ],
)
def test_damage_is_told_without_a_value(
    store: SecretStore, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    version = store.set(*WHERE, "KEY", "tiger")
    damage(tmp_path / "secrets")
    before = {p: p.read_bytes() for p in (tmp_path / "secrets").rglob("*") if p.is_file()}
    with pytest.raises(SecretError) as caught:
        store.get(*WHERE, "KEY", version)
    assert caught.value.hint
    assert "tiger" not in "".join(traceback.format_exception(caught.value))
    if damage is not _other_key:
        with pytest.raises(SecretError):
            store.set(*WHERE, "KEY", "lion")
        after = {p: p.read_bytes() for p in (tmp_path / "secrets").rglob("*") if p.is_file()}
        assert after == before


def test_a_damaged_key_that_sealed_nothing_is_made_anew(store: SecretStore, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/key").touch()
    version = store.set(*WHERE, "KEY", "tiger")
    assert store.get(*WHERE, "KEY", version) == "tiger"


def test_no_value_in_a_picture_of_the_store(store: SecretStore) -> None:
    store.set(*WHERE, "KEY", "tiger")
    assert "tiger" not in repr(store) + str(vars(store))


def test_many_writers_at_once(tmp_path: Path) -> None:
    """Also the key is made once, so that nothing is sealed with a key that is gone."""

    def put(n: int) -> tuple[str, str]:
        name = f"KEY_{n}"
        return name, SecretStore(tmp_path / "secrets").set(*WHERE, name, f"value {n}")

    with ThreadPoolExecutor(8) as pool:
        versions = dict(pool.map(put, range(24)))
    store = SecretStore(tmp_path / "secrets")
    assert store.current(*WHERE) == versions
    assert [store.get(*WHERE, f"KEY_{n}", versions[f"KEY_{n}"]) for n in range(24)] == [
        f"value {n}" for n in range(24)
    ]
