"""Write pictures as Mermaid text.

Labels are in quotes; characters with a meaning inside quotes are written as entities
(https://mermaid.js.org/syntax/flowchart.html).
"""

from __future__ import annotations

from lapwing.design.diagrams.model import Flow, Picture, Pie

_ENTITIES = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;"}


def mermaid(picture: Picture) -> str:
    """Write a picture as Mermaid text."""
    lines = _pie(picture) if isinstance(picture, Pie) else _flow(picture)
    return "\n".join(lines) + "\n"


def _flow(flow: Flow) -> list[str]:
    lines = ["---", f"title: {_yaml(flow.title)}", "---", "flowchart TB"]
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
    for number, band in enumerate(flow.bands[:-1]):
        label = f'-->|"{_label(band.to_next)}"|' if band.to_next else "~~~"
        lines.append(f"  band{number} {label} band{number + 1}")
    return lines


def _pie(pie: Pie) -> list[str]:
    lines = ["pie showData", f"  title {pie.title}"]
    return lines + [f'  "{_label(label)}" : {amount:.2f}' for label, amount in pie.slices]


def _label(text: str) -> str:
    return "".join(_ENTITIES.get(c, c) for c in text)


def _yaml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
