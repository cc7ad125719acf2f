"""Write pictures as Mermaid text.

Labels are in quotes; characters with a meaning inside quotes are written as entities
(https://mermaid.js.org/syntax/flowchart.html).
"""

from __future__ import annotations

from collections.abc import Iterable

from lapwing.design.diagrams.drawing import INK, PAPER, QUIET, SLICES, TINTS
from lapwing.design.diagrams.model import Flow, Graph, Group, Node, Picture, Pie

_CLASSES = [
    line
    for name, (fill, stroke) in TINTS.items()
    for line in (
        f"  classDef {name} fill:{PAPER},stroke:{stroke},color:{INK}",
        f"  classDef {name}Frame fill:{fill},stroke:{stroke},color:{QUIET}",
    )
]
"""Colours of boxes and frames. Forges draw in a light or a dark theme; with fill and text both set,
a label is readable in either."""
_ARROW = "#7b8794"
_ENTITIES = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;"}


def mermaid(picture: Picture) -> str:
    """Write a picture as Mermaid text."""
    if isinstance(picture, Pie):
        lines = _pie(picture)
    elif isinstance(picture, Graph):
        lines = _graph(picture)
    else:
        lines = _flow(picture)
    return "\n".join(lines) + "\n"


def _graph(graph: Graph) -> list[str]:
    """Write a graph; keys of the picture become numbered names, which Mermaid always accepts."""
    names: dict[str, str] = {}
    lines = ["---", f"title: {_yaml(graph.title)}", "---", "flowchart TB"]
    styles: list[str] = []
    for member in graph.members:
        _member(member, "  ", names, lines, styles)
    for link in graph.links:
        arrow = "~~~" if link.hidden else "-.->" if link.dashed else "-->"
        label = f'|"{_label(link.label)}"|' if link.label else ""
        lines.append(f"  {names[link.source]} {arrow}{label} {names[link.target]}")
    drawn = (number for number, link in enumerate(graph.links) if not link.hidden)
    return [*lines, *_CLASSES, *styles, *_line_style(drawn)]


def _member(
    member: Node | Group, indent: str, names: dict[str, str], lines: list[str], styles: list[str]
) -> None:
    name = names[member.key] = f"n{len(names)}"
    styles.append(f"  class {name} {member.tint}{'Frame' if isinstance(member, Group) else ''}")
    if isinstance(member, Group):
        lines.append(f'{indent}subgraph {name}["{_label(member.title)}"]')
        for inner in member.members:
            _member(inner, indent + "  ", names, lines, styles)
        lines.append(f"{indent}end")
        return
    slots = ("slots: blue, green",) if member.slots else ()
    label = "<br>".join(map(_label, (member.title, *member.lines, *slots)))
    lines.append(f'{indent}{name}["{label}"]')


def _flow(flow: Flow) -> list[str]:
    lines = ["---", f"title: {_yaml(flow.title)}", "---", "flowchart TB"]
    shown: list[bool] = []
    for number, band in enumerate(flow.bands):
        lines.append(f'  subgraph band{number}["{_label(band.title)}"]')
        lines.append("    direction LR")
        names = [f"box{number}_{i}" for i in range(len(band.boxes))]
        for name, box in zip(names, band.boxes, strict=True):
            label = "<br>".join(map(_label, (box.title, *box.lines)))
            lines.append(f'    {name}["{label}"]')
        arrow = " --> " if band.chained else " ~~~ "
        if len(names) > 1:
            lines.append(f"    {arrow.join(names)}")
        lines.append("  end")
        shown += [band.chained] * (len(names) - 1)
    for number, band in enumerate(flow.bands[:-1]):
        label = f'-->|"{_label(band.to_next)}"|' if band.to_next else "~~~"
        lines.append(f"  band{number} {label} band{number + 1}")
        shown.append(bool(band.to_next))
    lines += _CLASSES
    for number, band in enumerate(flow.bands):
        boxes = ",".join(f"box{number}_{i}" for i in range(len(band.boxes)))
        lines += [f"  class band{number} {band.tint}Frame", f"  class {boxes} {band.tint}"]
    return [*lines, *_line_style(i for i, is_shown in enumerate(shown) if is_shown)]


def _line_style(links: Iterable[int]) -> list[str]:
    """Color the arrows with these numbers: grey, which is visible on light and dark."""
    numbers = ",".join(map(str, links))
    return [f"  linkStyle {numbers} stroke:{_ARROW}"] if numbers else []


def _pie(pie: Pie) -> list[str]:
    colors = ", ".join(f'pie{n}: "{color}"' for n, color in enumerate(SLICES, 1))
    lines = ["---", f"config: {{themeVariables: {{{colors}}}}}", "---"]
    lines += ["pie showData", f"  title {pie.title}"]
    return lines + [f'  "{_label(label)}" : {amount:.2f}' for label, amount in pie.slices]


def _label(text: str) -> str:
    return "".join(_ENTITIES.get(c, c) for c in text)


def _yaml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
