"""What an image will consist of, from its source or its Dockerfile; nothing is built.

The layers are described beside the code that makes them (`python.py`, `node.py`, `static.py`); a
test compares the outlines with images that were built.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
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
_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?$", re.IGNORECASE)
_ARG = re.compile(r"ARG\s+(.+)$", re.IGNORECASE)
_INSTRUCTION = re.compile(r"(COPY|ADD|RUN|USER)\s+(.+)$", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})", re.ASCII)
_HEREDOC = re.compile(r"\d*<<(-?)([^<]+)")
"""Sources: docs.docker.com, Dockerfile reference, "FROM", "Environment replacement" and
"Here-documents"."""


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


def dockerfile_outline(
    service: str,
    text: str,
    arguments: Mapping[str, str] | None = None,
    target: str | None = None,
) -> ImageOutline:
    """Describe the image of a Dockerfile: what its last stage is based on, and adds to that.

    `arguments` are the build arguments; they override the defaults of the Dockerfile. `target`
    names another stage.
    """
    stages: dict[str, _Stage] = {}
    last: _Stage | None = None
    known: dict[str, str] = {}
    for line in instructions(text):
        if found := _FROM.match(line):
            name = _replace_variables(found[1], known)
            inherited = stages.get(name.lower(), _Stage(name))
            last = _Stage(inherited.base, list(inherited.layers), inherited.user)
            stages[(found[2] or "").lower()] = last
        elif last is None:
            if found := _ARG.match(line):
                _define(found[1], arguments or {}, known)
        elif found := _INSTRUCTION.match(line):
            if found[1].upper() == "USER":
                last.user = found[2]
            else:
                last.layers.append(ImageLayer(_short(found[0])))
    if target is not None:
        last = stages.get(target.lower())
    last = last or _Stage()
    base = "" if last.base == "scratch" else last.base
    return ImageOutline(service, base, tuple(last.layers), last.user)


def instructions(text: str) -> Iterator[str]:
    """Yield the instructions, each on one line, without comments and the bodies of heredocs."""
    lines = iter(text.splitlines())
    parts: list[str] = []
    for line in map(str.strip, lines):
        if not line or line.startswith("#"):
            continue
        parts.append(line.removesuffix("\\"))
        if line.endswith("\\"):
            continue
        instruction = " ".join(parts)
        parts.clear()
        yield instruction
        if _INSTRUCTION.match(instruction):
            for found in filter(None, map(_HEREDOC.fullmatch, words_of(instruction))):
                body = (each.lstrip("\t") if found[1] else each for each in lines)
                next((each for each in body if each == found[2]), None)
    if parts:
        yield " ".join(parts)


def _define(words: str, arguments: Mapping[str, str], known: dict[str, str]) -> None:
    """Add the arguments that `ARG` declares before the first stage to the known ones."""
    for word in words_of(words):
        name, has_default, default = word.partition("=")
        if name in arguments:
            known[name] = arguments[name]
        elif has_default:
            known[name] = _replace_variables(default, known)


def _replace_variables(text: str, known: Mapping[str, str]) -> str:
    """Replace `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+other}`; keep unknown ones."""

    def value(found: re.Match[str]) -> str:
        name, operator, word = found[1] or found[2], found[3], found[4] or ""
        if operator == "+":
            return word if known.get(name) else ""
        return known.get(name) or (word if operator else found[0])

    return _VARIABLE.sub(value, text)


def words_of(text: str) -> list[str]:
    """Split an instruction as a shell does; at blanks only, if a quote is not closed."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


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
