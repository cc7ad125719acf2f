"""Write docs/pictures/architecture.svg: the data flow, drawn as `lapwing diagram` draws.

`python -m docs.generate.pictures` writes it; a test compares it with the committed one. Drawn here,
the picture needs neither a script from another host nor a browser.
"""

from __future__ import annotations

from pathlib import Path

from lapwing.design.diagrams.layout import draw
from lapwing.design.diagrams.model import Band, Box, Flow
from lapwing.design.diagrams.svg import svg

FILE = Path(__file__).parents[1] / "pictures/architecture.svg"

FLOW = Flow(
    "architecture",
    "Data flow",
    (
        Band(
            "Command line",
            (
                Box("Stack file", ("lapwing.yaml",)),
                Box("Plan", ("documents, differences",)),
                Box("Build", ("bundles, static files, images",)),
            ),
            chained=True,
            to_next="commits",
        ),
        Band(
            "Desired state",
            (Box("git repository", ("one commit is one deployment",)),),
            to_next="is read by",
            tint="green",
        ),
        Band(
            "Targets",
            (
                Box("machine", ("agent and Envoy",)),
                Box("kubernetes", ("API server",)),
                Box("argocd", ("Argo CD, Argo Rollouts",)),
            ),
            to_next="is observed by",
            tint="orange",
        ),
        Band("Observed state", (Box("lapwing status, history, logs"),)),
    ),
)


def picture() -> str:
    """Return the picture as SVG."""
    return svg(draw(FLOW))


if __name__ == "__main__":
    FILE.write_text(picture())
