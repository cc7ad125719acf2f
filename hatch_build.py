"""Metadata of the wheel that depends on the forge that releases it: project URLs, and the README.

The release workflow sets PROJECT_URL to the address of the repository. An index cannot resolve
relative links, so those of the README become links to the files of the released commit. A wheel
that is built elsewhere has no URLs and the README as it is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE_LINK = re.compile(r"(!?)(\[[^\]]*\]\()(?![a-z]+:|#)")


class ForgeMetadata(MetadataHookInterface):
    """Adds `urls` and `readme` to the metadata of pyproject.toml."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the fields. GITHUB_SHA and GITEA_ACTIONS are variables of every job on a forge."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        # Gitea's address of the server ends with a slash, GitHub's does not.
        project = re.sub("(?<!:)//+", "/", os.environ.get("PROJECT_URL", ""))
        if project:
            gitea = "GITEA_ACTIONS" in os.environ
            commit = os.environ["GITHUB_SHA"]
            page = f"{project}/{'src/commit' if gitea else 'blob'}/{commit}"
            raw = f"{project}/{'raw/commit' if gitea else 'raw'}/{commit}"
            metadata["urls"] = {
                "Source": project,
                "Issues": f"{project}/issues",
                "Documentation": f"{page}/docs/index.md",
                "Changelog": f"{page}/CHANGELOG.md",
            }
            text = _RELATIVE_LINK.sub(lambda m: f"{m[0]}{raw if m[1] else page}/", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
