"""Repairs the references of a damaged desired-state repository from its own objects.

A power failure can leave a reference empty that git had just replaced, while the commits are whole.
The newest commit that has all of its objects is then what the reference had.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from lapwing.desired.git_objects import BRANCH, read_objects
from lapwing.desired.repository import COMMIT, NOTES, DesiredRepository
from lapwing.errors import DesiredStateError


@dataclass(frozen=True, slots=True)
class _Commit:
    """A commit: its parents, the time it was made, and whether its message is that of a note."""

    parents: tuple[str, ...]
    time: int
    notes: bool


def restore_references(repository: DesiredRepository) -> list[str]:
    """Point each reference that is empty or missing at its newest commit; return their names.

    A damaged reference of another name is removed: what it protected cannot be known.
    """
    path = repository.path
    if not (path / "objects").is_dir():
        return []
    with repository.writing():
        head = path / "HEAD"
        if not head.is_file() or not head.read_bytes().startswith(b"ref: refs/"):
            head.write_text(f"ref: {BRANCH}\n")
        damaged = set()
        for file in [f for f in (path / "refs").rglob("*") if f.is_file()]:
            commit = file.read_text(errors="replace").strip()
            if not COMMIT.fullmatch(commit) or not _exists(repository, commit):
                damaged.add(str(file.relative_to(path)))
                file.unlink()
        commits, done = _commits(repository), []
        for name, notes in ((BRANCH, False), (NOTES, True)):
            # A packed reference of the same name is older than the damaged one.
            if name not in damaged and repository.git.ask("rev-parse", "--verify", "-q", name):
                continue
            found = _newest(repository, {c: v for c, v in commits.items() if v.notes is notes})
            if found is not None:
                repository.git.text("update-ref", name, found)
                done.append(name)
    return done


def _exists(repository: DesiredRepository, commit: str) -> bool:
    return read_objects(repository.git, [commit], "commit") != [None]


def _commits(repository: DesiredRepository) -> dict[str, _Commit]:
    """Return every commit in the repository that can be read."""
    listed = repository.git.text(
        "cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)"
    )
    names = [line.split()[0] for line in listed.splitlines() if line.endswith(" commit")]
    found = {}
    for name, data in zip(names, read_objects(repository.git, names, "commit"), strict=True):
        header, _, text = (data or b"").decode(errors="replace").partition("\n\n")
        fields = [line.split() for line in header.splitlines()]
        times = [int(f[-2]) for f in fields if f[:1] == ["committer"] and f[-2].isdigit()]
        if times:
            parents = tuple(f[1] for f in fields if f[:1] == ["parent"])
            found[name] = _Commit(parents, times[0], text.startswith("Notes "))
    return found


def _newest(repository: DesiredRepository, commits: dict[str, _Commit]) -> str | None:
    """Return the newest commit that has all of its objects, looking at children first."""
    tips = set(commits) - {parent for c in commits.values() for parent in c.parents}
    for tip in sorted(tips, key=lambda name: commits[name].time, reverse=True):
        at: str | None = tip
        while at in commits:
            if _is_whole(repository, at):
                return at
            at = next(iter(commits[at].parents), None)
    return None


def _is_whole(repository: DesiredRepository, commit: str) -> bool:
    with contextlib.suppress(DesiredStateError):
        repository.git.text("rev-list", "--objects", "--quiet", commit)
        return True
    return False
