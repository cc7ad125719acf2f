"""Lay out a graph with Graphviz (`dot`): nested frames, boxes in ranks, and curved links.

Graphviz computes all positions; the shapes are drawn here. Boxes and labels have sizes that
are estimated as in `drawing.py`, so that the fonts of a machine change nothing. The library comes
in the wheel of pygraphviz, which the extra `design` installs; Mermaid text needs no layout.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from lapwing.design.diagrams.drawing import (
    INK,
    PAPER,
    QUIET,
    TINTS,
    Drawing,
    Path,
    Rect,
    Shape,
    Text,
    longest,
    width_of,
    wrap,
)
from lapwing.design.diagrams.icons import SIZE, icon
from lapwing.design.diagrams.model import Graph, Group, Link, Node, flat
from lapwing.design.fonts import EXTRA_HINT
from lapwing.errors import LapwingError

SLOTS = (("blue", "#4c78a8", PAPER), ("green", "#d9efdf", INK))
_NAME, _LINE, _LABEL, _FRAME = 10.5, 9.0, 8.5, 9.5
_LEADING, _PAD, _SLOT = 1.32, 7.0, 13.0
_BELOW = 2.5
"""The points between an icon and the line below it."""
_LEAST, _MOST = 74.0, 168.0
_MARGIN, _HEAD = 14.0, 30.0
_APART = "10"
"""The points around a frame, and between frames side by side."""
_INCH = 72.0
_CURVE = 8
"""Straight pieces of one Bézier curve."""

Point = tuple[float, float]
Frame = tuple[float, float, float, float]
"""Left, top, width and height."""


def draw_graph(graph: Graph) -> Drawing:
    """Lay out a graph. Raises LapwingError if Graphviz is not installed."""
    nodes = {node.key: node for node in _nodes(graph.members)}
    found = _layout(graph)
    left, bottom, right, top = (float(n) for n in found["bb"].split(","))
    width = max(right - left + 2 * _MARGIN, width_of(graph.title, 14, bold=True) + 2 * _MARGIN)
    shift = (width - (right - left)) / 2 - left

    def at(x: float, y: float) -> Point:
        return round(x + shift, 1), round(top - y + _HEAD, 1)

    groups = {f"cluster_{group.key}": group for group in _groups(graph.members)}
    objects = found["objects"]
    shapes: list[Shape] = [Text(_MARGIN, 20, graph.title, 14, bold=True)]
    frames = [(groups[o["name"]], _frame(o, at)) for o in objects if o["name"] in groups]
    for group, (x, y, wide, high) in frames:
        shapes.append(Rect(x, y, wide, high, *TINTS[group.tint], 8))
    links = {str(number): link for number, link in enumerate(graph.links)}
    labels: list[Shape] = []
    passed: list[Point] = []
    for edge in found.get("edges", ()):
        link = links[edge["id"]]
        if link.hidden:
            continue
        shapes += _line(link, edge["pos"], at)
        labels += _label(link, edge, at)
        passed += (at(*p) for p in _curve(edge["pos"], _CURVE * 8))
    for group, frame in frames:
        shapes += _title(group, frame, passed)
    for each in objects:
        if each["name"] in nodes:
            shapes += _box(nodes[each["name"]], each, at)
    return Drawing(width, top - bottom + _HEAD + _MARGIN, (*shapes, *labels), graph.title)


def _layout(graph: Graph) -> Any:
    """Run `dot` and return its JSON; sizes in points, y upwards."""
    try:
        from pygraphviz import AGraph
    except ImportError as error:
        message = "This picture needs Graphviz, which is not installed."
        raise LapwingError(message, hint=EXTRA_HINT) from error
    wanted = AGraph(directed=True, strict=False)
    wanted.graph_attr.update(
        compound="true", rankdir="TB", nodesep="0.24", ranksep="0.34", margin=_APART, newrank="true"
    )
    wanted.node_attr.update(shape="box", fixedsize="true", label="")
    wanted.edge_attr.update(arrowhead="none")
    first, last = _rows(graph, first=True), _rows(graph, first=False)
    _fill(wanted, graph.members, _widest(graph))
    for _, row in _in_rows(graph):
        wanted.add_subgraph(row, rank="same")
    for number, link in enumerate(graph.links):
        options = {"id": str(number)}
        if link.source in last:
            options["ltail"] = f"cluster_{link.source}"
        if link.target in first:
            options["lhead"] = f"cluster_{link.target}"
        if link.hidden:
            options["style"] = "invis"
        if link.hidden or (link.target in first and not link.dashed):
            options["weight"] = "9"
        if link.label:
            options["label"] = _space(width_of(link.label, _LABEL) + 6, _LABEL * 1.6)
        source, target = last.get(link.source, [link.source]), first.get(link.target, [link.target])
        ends = source[len(source) // 2], target[len(target) // 2]
        wanted.add_edge(*ends, key=str(number), **options)
    return json.loads(wanted.draw(format="json0", prog="dot"))


def _rows(graph: Graph, *, first: bool) -> dict[str, list[str]]:
    """Return the boxes in the first row, or in the last row, of each frame."""
    placed = {link.target if first else link.source for link in graph.links if link.hidden}
    return {
        group.key: [key for key in keys if key not in placed] or keys
        for group in _groups(graph.members)
        if (keys := [node.key for node in _nodes((group,))])
    }


def _in_rows(graph: Graph) -> Iterator[tuple[list[Node], list[str]]]:
    """Yield the boxes of each frame with rows, and the keys of its first row."""
    hidden = {(link.source, link.target) for link in graph.links if link.hidden}
    for group in _groups(graph.members):
        keys = {member.key for member in group.members}
        pairs = [pair for pair in hidden if keys.issuperset(pair)]
        placed = {key for pair in pairs for key in pair}
        below = {target for _, target in pairs}
        boxes = [m for m in group.members if isinstance(m, Node) and m.key in placed]
        if boxes:
            yield boxes, [box.key for box in boxes if box.key not in below]


def _widest(graph: Graph) -> dict[str, float]:
    """Return the width of each box in rows: that of the widest, so that they are aligned."""
    boxes = [box for found, _ in _in_rows(graph) for box in found]
    widest = max((_size(box)[0] for box in boxes), default=0.0)
    return dict.fromkeys((box.key for box in boxes), widest)


def _fill(parent: Any, members: tuple[Node | Group, ...], widest: Mapping[str, float]) -> None:
    for member in members:
        if isinstance(member, Group):
            room = _space(width_of(member.title, _FRAME, bold=True) + 4, _FRAME * 1.5)
            inner = parent.add_subgraph(
                [], f"cluster_{member.key}", label=room, labeljust="l", margin=_APART
            )
            _fill(inner, member.members, widest)
        else:
            width, height = _size(member)
            width = max(width, widest.get(member.key, 0.0))
            parent.add_node(member.key, width=width / _INCH, height=height / _INCH)


def _space(width: float, height: float) -> str:
    """Return a label of a fixed size; without text, no font is measured."""
    size = f'WIDTH="{math.ceil(width)}" HEIGHT="{math.ceil(height)}"'
    return f'<<TABLE BORDER="0" CELLPADDING="0" FIXEDSIZE="TRUE" {size}><TR><TD></TD></TR></TABLE>>'


def _nodes(members: tuple[Node | Group, ...]) -> list[Node]:
    return [member for member in flat(members) if isinstance(member, Node)]


def _groups(members: tuple[Node | Group, ...]) -> list[Group]:
    return [member for member in flat(members) if isinstance(member, Group)]


def _texts(node: Node) -> list[tuple[str, float, bool]]:
    """Wrap the text of a box: lines with size and whether they are bold."""
    beside = SIZE + 5 if node.icon else 0
    room = max(_MOST - 2 * _PAD, longest(node.title, _NAME, bold=True) + beside)
    title = room - beside
    found = [(line, _NAME, True) for line in wrap(node.title, title, _NAME, bold=True)]
    return found + [(t, _LINE, False) for line in node.lines for t in wrap(line, room, _LINE)]


def _size(node: Node) -> Point:
    texts = _texts(node)
    widest = max(
        width_of(text, size, bold=bold) + (SIZE + 5 if bold and node.icon else 0)
        for text, size, bold in texts
    )
    height = sum(size * _LEADING for _, size, _ in texts) + (_SLOT + 4 if node.slots else 0)
    height += _BELOW if node.icon else 0
    return max(_LEAST, widest + 2 * _PAD), height + 2 * _PAD


def _frame(found: Any, at: Any) -> Frame:
    x1, y1, x2, y2 = (float(n) for n in found["bb"].split(","))
    (left, top), (right, bottom) = at(x1, y2), at(x2, y1)
    return left, top, right - left, bottom - top


def _title(group: Group, frame: Frame, passed: list[Point]) -> Iterator[Shape]:
    """Write the title of a frame where no line passes: on the left, on the right, or between.

    If lines pass everywhere, the title is on the left and covers them.
    """
    x, y, width, _ = frame
    wide = width_of(group.title, _FRAME, bold=True)
    rest = max(width - wide - 18, 0)
    starts = [x + 9 + rest * share for share in (0, 1, 0.5, 0.25, 0.75)]
    free = (
        s
        for s in starts
        if not any(s - 3 <= px <= s + wide + 3 and y <= py <= y + 18 for px, py in passed)
    )
    start = next(free, None)
    if start is None:
        start = starts[0]
        yield Rect(start - 2, y + 4, wide + 4, 13, TINTS[group.tint][0], TINTS[group.tint][0], 3)
    yield Text(start, y + 14, group.title, _FRAME, bold=True, color=QUIET)


def _box(node: Node, found: Any, at: Any) -> Iterator[Shape]:
    x, y = at(*(float(n) for n in found["pos"].split(",")))
    width, height = float(found["width"]) * _INCH, float(found["height"]) * _INCH
    left, top = x - width / 2, y - height / 2
    stroke = TINTS[node.tint][1]
    yield Rect(left, top, width, height, PAPER, stroke)
    yield from icon(node.icon, left + _PAD, top + _PAD, stroke)
    line, below = top + _PAD, _BELOW if node.icon else 0
    for text, size, bold in _texts(node):
        line += size * _LEADING + (0 if bold else below)
        below = below if bold else 0
        start = left + _PAD + (SIZE + 5 if bold and node.icon else 0)
        yield Text(start, line - size * 0.3, text, size, bold, INK if bold else QUIET)
    if node.slots:
        half = (width - 2 * _PAD - 4) / 2
        for number, (name, fill, ink) in enumerate(SLOTS):
            at_x = left + _PAD + number * (half + 4)
            yield Rect(at_x, line + 4, half, _SLOT, fill, stroke, 3)
            yield Text(at_x + half / 2, line + 13, name, 8, color=ink, anchor="middle")


def _line(link: Link, position: str, at: Any) -> Iterator[Shape]:
    points = [at(*p) for p in _curve(position)]
    yield Path(tuple(points), QUIET, width=1.1, dashed=link.dashed)
    (x1, y1), (x2, y2) = points[-2], points[-1]
    turn = math.atan2(y2 - y1, x2 - x1)
    corners = [
        (x2 - 7 * math.cos(turn + side), y2 - 7 * math.sin(turn + side)) for side in (0.42, -0.42)
    ]
    yield Path(((x2, y2), *corners), QUIET, QUIET, 0.5)


def _curve(position: str, pieces: int = _CURVE) -> list[Point]:
    """Return the points of a spline: `x,y` four by four, each curve begins where one ends."""
    pairs = [word.split(",") for word in position.split() if word[0] not in "es"]
    knots = [(float(x), float(y)) for x, y in pairs]
    points = [knots[0]]
    for start in range(0, len(knots) - 3, 3):
        curve = knots[start : start + 4]
        points += [_bezier(curve, step / pieces) for step in range(1, pieces + 1)]
    return points


def _bezier(knots: list[Point], share: float) -> Point:
    rest = 1 - share
    weights = (rest**3, 3 * rest**2 * share, 3 * rest * share**2, share**3)
    x, y = (sum(w * k[axis] for w, k in zip(weights, knots, strict=True)) for axis in (0, 1))
    return x, y


def _label(link: Link, edge: Any, at: Any) -> Iterator[Shape]:
    if link.label:
        x, y = at(*(float(n) for n in edge["lp"].split(",")))
        width = width_of(link.label, _LABEL)
        yield Rect(x - width / 2 - 2, y - 6, width + 4, 12, PAPER, PAPER, 3)
        yield Text(x, y + 3, link.label, _LABEL, color=QUIET, anchor="middle")
