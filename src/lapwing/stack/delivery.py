"""What people write of releases: the sections that a stack file and the release file share.

A project that is not a stack (a library, a tool) is released by the same rules; its file
`lapwing-release.yaml` has these sections and a name, see `project.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import Field

from lapwing.stack.fields import Name, NonEmpty, StrictModel, short_form

DOCUMENTS = ["docs/**", "*.md", ".gitignore"]

ForgeName = Literal["gitea", "github", "none"]


class Forge(StrictModel):
    """The forge that shows releases and keeps their files."""

    kind: ForgeName = Field(
        description="`gitea` (Forgejo, too), `github`, or `none` to make tags only."
    )
    url: NonEmpty | None = Field(
        None,
        description="The forge's address, where it does not follow from the remote.",
        examples=["https://git.example/gitea"],
    )


class Release(StrictModel):
    """How versions are chosen and released; see `lapwing release`."""

    policy: Literal["feature-merge", "conventional-commits", "stated"] = Field(
        "feature-merge",
        description="`feature-merge`: a merge of a branch in `features` raises the major version, "
        "anything else the patch. `conventional-commits`: breaking changes raise the major version "
        "(before 1.0.0 the minor), `feat` the minor (before 1.0.0 the patch), `fix` and others the "
        "patch. `stated`: the version in `version_file`, when it is higher than the last.",
    )
    branches: list[NonEmpty] = Field(
        ["main", "master"], description="The branches that are released from.", min_length=1
    )
    features: list[NonEmpty] = Field(
        ["feature/*"], description="Branches whose merge is a major version.", min_length=1
    )
    docs: list[NonEmpty] = Field(
        DOCUMENTS,
        description="Files whose change alone is no release, by patterns as in .gitignore.",
    )
    version_file: NonEmpty | None = Field(
        None,
        description='The file whose first version, as in `version = "1.2.3"`, is released under '
        "the policy `stated`.",
        examples=["pyproject.toml"],
    )
    forge: Annotated[Forge | None, short_form("kind", ForgeName | Forge)] = Field(
        None, description="Left out, it follows from the remote: GitHub by its name, else Gitea."
    )
    chart: NonEmpty | Literal[False] | None = Field(
        None,
        description="The folder of a Helm chart that you keep. Left out, it is the chart that "
        "Lapwing makes of the stack, if an environment is a cluster; `false` for none.",
    )
    files: list[NonEmpty] = Field(
        default_factory=list,
        description="More files to upload, relative to this one; `*` in the last part.",
        examples=["dist/*.whl"],
    )


class Mirrored(StrictModel):
    """An image of somebody else's that is copied to the team's registry at each release, tagged
    with its own version, the release's version and `latest`."""

    image: NonEmpty = Field(
        description="The image with its version.", examples=["fleetdm/fleet:v4.93.0"]
    )
    name: NonEmpty | None = Field(
        None, description="Its name in the team's registry. Default: the last part of its own."
    )
    platforms: list[NonEmpty] = Field(
        default_factory=list,
        description="Only these of an image for several. Default: all.",
        examples=["linux/amd64"],
    )


Registry = Annotated[
    NonEmpty | None,
    Field(
        description="The team's registry and its folder for images. Left out, mirrored images go "
        "to the forge's own registry, into the owner's folder.",
        examples=["registry.example/team"],
    ),
]
Releases = Annotated[Release, Field(description="How versions are chosen and released.")]
Mirror = Annotated[
    list[Annotated[Mirrored, short_form("image", NonEmpty | Mirrored)]],
    Field(description="Images of others to copy to the team's registry."),
]


class Delivery(Protocol):
    """What a stack and a project have both."""

    @property
    def registry(self) -> str | None:
        """The team's registry and folder."""
        ...

    @property
    def release(self) -> Release:
        """How versions are chosen and released."""
        ...

    @property
    def mirror(self) -> list[Mirrored]:
        """Images of others to copy."""
        ...


class Project(StrictModel):
    """A project that is released and is not a stack."""

    project: Name = Field(description="The name of the project.")
    registry: Registry = None
    release: Releases = Field(default_factory=Release)
    mirror: Mirror = Field(default_factory=list)
