"""Which files of a static service are in the layer of hashed files, and which layers are kept."""

from __future__ import annotations

from pathlib import Path

from lapwing.build.image.hashed_files import MAX_RELEASES, mark, select, split
from lapwing.build.image.layer import Layer
from lapwing.registry.manifest import Descriptor


def layer(number: int) -> Layer:
    digest = f"sha256:{number:064}"
    return Layer(Descriptor(media_type="layer", digest=digest, size=1), digest, Path("layer"))


def test_files_with_a_hash_in_their_name_are_split_from_the_others(tmp_path: Path) -> None:
    names = ("index.html", "assets/app.js", "assets/app-AbCd1234.js", "app-AbCd1234.js")
    names += ("index.html.gz", "assets/app-AbCd1234.js.gz")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "assets/link-AbCd1234.js").symlink_to("app.js")
    (tmp_path / "assets/folder-AbCd1234.d").mkdir()
    links = ("assets", "assets/link-AbCd1234.js", "assets/folder-AbCd1234.d")
    files = {f"srv/{name}": tmp_path / name for name in (*names, *links)} | {"srv/tmp": None}
    hashed, others = split(files, "srv")
    name = "srv/assets/app-AbCd1234.js"
    assert list(hashed) == [name, f"{name}.gz"], "a link depends on another file"
    assert {**hashed, **others} == files


def test_layers_of_the_newest_releases_are_kept_once_and_newest_last() -> None:
    earlier = [layer(number) for number in range(1, MAX_RELEASES + 3)]
    kept = select(earlier, [mark(layer(2))])
    assert kept == [layer(n) for n in range(MAX_RELEASES + 1, 0, -1) if n != 2]
