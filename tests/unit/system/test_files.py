"""Files are replaced as a whole or not at all; trees are removed as a whole."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lapwing.system import files
from lapwing.system.files import remove_tree, write_atomic


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_write_atomic_sets_mode(tmp_path: Path, mode: int) -> None:
    old = os.umask(0o077)
    try:
        write_atomic(tmp_path / "file", b"new", mode)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_write_atomic_keeps_old_file_on_full_disk(tmp_path: Path) -> None:
    """A limit on file sizes simulates the disk: the kernel refuses the write half-way."""
    (tmp_path / "file").write_bytes(b"old")
    program = (
        "import errno, resource, signal, sys; from pathlib import Path\n"
        "from lapwing.system.files import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: write_atomic(Path(sys.argv[1]), b'x' * 100000)\n"
        "except OSError as error: sys.exit(7 if error.errno == errno.EFBIG else 8)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "file")], check=False)
    assert done.returncode == 7
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_write_atomic_survives_kill(tmp_path: Path) -> None:
    """After SIGKILL of a writer, the file is the old or the new one."""
    file = tmp_path / "file"
    file.write_bytes(b"0" * 50_000)
    program = (
        "import sys, itertools; from pathlib import Path\n"
        "from lapwing.system.files import write_atomic\n"
        "print('up', flush=True)\n"
        "for n in itertools.count(): write_atomic(Path(sys.argv[1]), str(n % 10).encode() * 50000)"
    )
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        inode = file.stat().st_ino
        while file.stat().st_ino == inode:
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        data = file.read_bytes()
        assert len(data) == 50_000
        assert len(set(data)) == 1


def test_write_atomic_without_mode_follows_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "new" / "file", b"new", None)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new" / "file").stat().st_mode) == 0o640


def test_remove_tree_removes_write_protected_files(tmp_path: Path) -> None:
    folder = tmp_path / "release"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("x")
    (folder / "link").symlink_to("/etc/passwd")
    for path in (folder / "deep" / "file", folder / "deep", folder):
        path.chmod(path.stat().st_mode & ~0o222)
    remove_tree(folder)
    assert not folder.exists()
    remove_tree(folder)


def test_reserve_is_used_for_synced_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "environments" / "shop" / "state.json"
    monkeypatch.setattr(files, "RESERVE_FILE_BYTES", 100)
    assert files.fill_reserve(tmp_path)
    reserve = tmp_path / files.RESERVE
    assert [f.stat().st_size for f in reserve.iterdir()] == [100] * files.RESERVE_FILES

    def write_on_full_disk(*_: object) -> None:
        if len(list(reserve.iterdir())) > files.RESERVE_FILES - 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_replace", write_on_full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(target, b"", sync=False)
    write_atomic(target, b"")
    assert len(list(reserve.iterdir())) == files.RESERVE_FILES - 3


def test_full_disk_without_a_reserve_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_on_full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_replace", write_on_full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "a", b"")
