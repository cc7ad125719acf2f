"""What an image will consist of, from its source or its Dockerfile; nothing is built.

The layers are described beside the code that makes them (`python.py`, `node.py`, `static.py`); a
test compares the outlines with images that were built.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lapwing.build.dependencies import read_dependencies
from lapwing.build.detect import detect
from lapwing.build.image import config, node, python, static
from lapwing.build.image.builder import ImageRequest, base_name
from lapwing.build.source import Source
from lapwing.inventory.images import ImageLayer, ImageOutline
from lapwing.stack.image import parse

MAX_INSTRUCTION_CHARS = 60
"""How much of an instruction is shown."""
_CONTINUED = re.compile(r"\\\n(\s*#.*\n)*\s*")
_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?$", re.IGNORECASE)
_INSTRUCTION = re.compile(r"(COPY|ADD|RUN|USER)\s+(.+)$", re.IGNORECASE)


def outline(request: ImageRequest, source: Source) -> ImageOutline:
    """Describe the image of a service without a Dockerfile.

    Raises BuildError if the source is not recognized.
    """
    build, files = request.build, set(source.files)
    base = base_name(request, source) or ""
    if base and "@" not in base and str(parse(base)) in request.lock:
        base += ", pinned by lapwing.lock"
    layers: Sequence[ImageLayer]
    if build.static is not None:
        layers = static.LAYERS
    elif detect(files, static=False) == "python":
        needs = read_dependencies(source.folder, files, build.extras, build.groups)
        layers = python.outline(needs)
    else:
        layers = node.LAYERS
    return ImageOutline(build.service, base, tuple(layers), str(request.user or config.USER))


def dockerfile_outline(service: str, text: str) -> ImageOutline:
    """Describe the image of a Dockerfile: what its last stage is based on, and adds to that."""
    stages: dict[str, _Stage] = {}
    last = _Stage()
    for line in _CONTINUED.sub(" ", text).splitlines():
        if found := _FROM.match(line.strip()):
            inherited = stages.get(found[1], _Stage(found[1]))
            last = _Stage(inherited.base, list(inherited.layers), inherited.user)
            stages[found[2] or ""] = last
        elif found := _INSTRUCTION.match(line.strip()):
            if found[1].upper() == "USER":
                last.user = found[2]
            else:
                last.layers.append(ImageLayer(_short(found[0])))
    base = "" if last.base == "scratch" else last.base
    return ImageOutline(service, base, tuple(last.layers), last.user)


@dataclass
class _Stage:
    """A stage of a Dockerfile, with what it has from the stages that it is based on."""

    base: str = ""
    layers: list[ImageLayer] = field(default_factory=list)
    user: str = ""


def _short(instruction: str) -> str:
    text = " ".join(instruction.split())
    if len(text) <= MAX_INSTRUCTION_CHARS:
        return text
    return text[: MAX_INSTRUCTION_CHARS - 3] + "..."
