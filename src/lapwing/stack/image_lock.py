"""The lock file beside a stack file: the digests of images that are named by a tag.

`lapwing image pin` writes it: the base images of builds, and the third-party images that Lapwing
renders (Envoy, curl, databases, ...). Publishers can move a tag; with the file, every build
and every manifest uses the same image.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from pathlib import Path

from lapwing.errors import BuildError, ImageReferenceError
from lapwing.stack.image import check_digest, mirrored, parse
from lapwing.system.files import write_atomic

LOCK = "lapwing.lock"
_HEAD = """\
# Written by `lapwing image pin`; run it again to update. Commit this file, so that every build and
# every manifest uses the same images.
"""


def read_lock(folder: Path) -> dict[str, str]:
    """Read the digests of images by reference. Raises BuildError if the file is invalid."""
    path = folder / LOCK
    try:
        entries = tomllib.loads(path.read_text("utf-8")).get("images", {})
        return {str(name): check_digest(entry["digest"]) for name, entry in entries.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, ImageReferenceError) as error:
        raise BuildError(
            f"{path} is not a valid lock file.",
            hint=f"Restore it with `git checkout {LOCK}`, or remove it and run `lapwing image "
            "pin`.",
        ) from error


def write_lock(folder: Path, digests: Mapping[str, str]) -> Path:
    """Write the lock file, with the date of today for each digest that is new."""
    path = folder / LOCK
    before = tomllib.loads(path.read_text("utf-8")).get("images", {}) if path.is_file() else {}
    today = datetime.datetime.now(datetime.UTC).date()
    lines = [_HEAD]
    for name, digest in sorted(digests.items()):
        entry = before.get(name, {})
        date = entry.get("date", today) if entry.get("digest") == digest else today
        lines.append(f'[images."{name}"]\ndigest = "{digest}"\ndate = {date}\n')
    write_atomic(path, "\n".join(lines).encode(), None)
    return path


def pinned(text: str, lock: Mapping[str, str], mirror: str | None = None) -> str:
    """Return an image with the digest that the lock has for it; without a digest if it has none.

    With a mirror, the image is the one there. A mirror has the same digests, so that of the
    original name is used if the lock has none for the mirror.
    """
    original, image = parse(text), mirrored(text, mirror)
    digest = lock.get(str(parse(image))) or lock.get(str(original))
    return f"{image}@{digest}" if digest and not original.digest else image
