"""How much of a log is read at once."""

from __future__ import annotations

from pathlib import Path

from lapwing.agent import log_positions


def test_many_short_lines_are_read_in_parts(tmp_path: Path) -> None:
    path, count = tmp_path / "app.log", log_positions.MAX_LINES * 2 + 10
    path.write_text("".join(f"{n}\n" for n in range(count)))
    read, position = list[int](), None
    sizes = []
    while part := log_positions.read(path, position, 128 * 1024, is_current=True):
        read += [int(line) for line, _ in part.lines]
        sizes.append(len(part.lines))
        position = part.after
        assert not part.lost
    assert read == list(range(count))
    assert max(sizes) == log_positions.MAX_LINES
