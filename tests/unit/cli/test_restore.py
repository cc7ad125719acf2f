"""The parts of a backup, by their names."""

from __future__ import annotations

import pytest

from lapwing.agent.backup_manifest import Manifest, Part
from lapwing.commands.backup import find_part
from lapwing.errors import UnknownNameError

PART = Part(name="volume.data", kind="volume", bytes=1, sha256="")
MANIFEST = Manifest(id="1", stack="s", environment="local", created=1.0, commit=None, parts=[PART])


@pytest.mark.parametrize("name", ["data", "volume.data"])
def test_volume_is_found_by_both_of_its_names(name: str) -> None:
    assert find_part(MANIFEST, name) is PART


def test_unknown_part_lists_each_part_once() -> None:
    with pytest.raises(UnknownNameError) as refused:
        find_part(MANIFEST, "nope")
    assert refused.value.hint == "Known resources and volumes: data."
