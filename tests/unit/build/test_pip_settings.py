"""Settings of pip that uv does not read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lapwing.build import python
from lapwing.errors import BuildError


@pytest.fixture(autouse=True)
def _no_system_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "SYSTEM_PIP_CONFIGS", ())


@pytest.mark.parametrize(
    ("setting", "variable"),
    [("index-url", "UV_DEFAULT_INDEX"), ("extra-index-url", "UV_INDEX")],
)
def test_index_of_pip_is_never_left_out_silently(
    tmp_path: Path, setting: str, variable: str
) -> None:
    name = f"PIP_{setting}".upper().replace("-", "_")
    with pytest.raises(BuildError, match=rf"{setting} \(in {name}\)") as caught:
        python.check_pip_settings({"HOME": str(tmp_path), name: "https://a.example/simple"})
    assert variable in str(caught.value.hint)
    file = tmp_path / ".config" / "pip" / "pip.conf"
    file.parent.mkdir(parents=True)
    file.write_text(f"[global]\ntimeout = 5\n{setting} = https://a.example/simple\n")
    with pytest.raises(BuildError, match=str(file)):
        python.check_pip_settings({"HOME": str(tmp_path)})
    with pytest.raises(BuildError, match=str(file)):
        python.check_pip_settings({"HOME": "/nonexistent", "PIP_CONFIG_FILE": str(file)})


def test_index_of_uv_settles_it(tmp_path: Path) -> None:
    pip = {"HOME": str(tmp_path), "PIP_INDEX_URL": "https://a.example/simple"}
    python.check_pip_settings({**pip, "UV_DEFAULT_INDEX": "https://a.example/simple"})
    (tmp_path / ".config" / "uv").mkdir(parents=True)
    (tmp_path / ".config" / "uv" / "uv.toml").touch()
    python.check_pip_settings(pip)


def test_other_settings_of_pip_do_not_stop_the_build(tmp_path: Path) -> None:
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip" / "pip.conf").write_text("[global]\n# index-url = x\ncert = /a.pem\n")
    python.check_pip_settings({"HOME": str(tmp_path), "PIP_CERT": "/a.pem", "PIP_INDEX_URL": ""})
    (tmp_path / ".pip" / "pip.conf").write_text("[global]\nindex_url = x\n")
    ignored = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    python.check_pip_settings(ignored)
