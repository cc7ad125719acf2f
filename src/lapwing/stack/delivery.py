"""The sections about releases, which the stack file and the release file share.

A project that is not a stack (a library, a tool) is released by the same rules; its file
`lapwing-release.yaml` has these sections and a name (see `project.py`).
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import Field

from lapwing.stack.fields import Name, NonEmpty, StrictModel, short_form

DOCUMENTS = ["docs/**", "*.md", ".gitignore"]

ForgeName = Literal["gitea", "github", "none"]


class Forge(StrictModel):
    """The forge that publishes releases and stores their files."""

    kind: ForgeName = Field(description="`gitea` (or Forgejo), `github`, or `none` for tags only.")
    url: NonEmpty | None = Field(
        None,
        description="The forge's URL. Default: derived from the git remote.",
        examples=["https://git.example/gitea"],
    )


class Branch(StrictModel):
    """A branch that releases are made from.

    On a branch of pre-releases, `1.3.0-rc.1` is followed by `1.3.0-rc.2`, until `1.3.0` is released
    from another branch. A maintenance branch releases only versions in its range. Neither moves
    `latest` to an older version or to a pre-release.
    """

    name: NonEmpty = Field(description="The branch.", examples=["next"])
    prerelease: bool | NonEmpty = Field(
        False,
        description="Make pre-releases with this identifier. `true`: with the name of the branch.",
        examples=["rc"],
    )
    range: NonEmpty | None = Field(
        None,
        description="The versions of a maintenance branch: `1.x` or `1.2.x`. Default: its name, if "
        "that is such a range.",
        examples=["1.x"],
    )


class Parts(StrictModel):
    """What a release of a project consists of."""

    tag: NonEmpty | None = Field(
        None,
        description="The form of the git tags. Default: `v{version}`; of a project in `projects`, "
        "`NAME-v{version}`.",
        examples=["api@{version}"],
    )
    version_file: NonEmpty | None = Field(
        None,
        description="The file with the version for the policy `stated`: its first line such as "
        '`version = "1.2.3"`.',
        examples=["pyproject.toml"],
    )
    chart: NonEmpty | Literal[False] | None = Field(
        None,
        description="The folder of your own Helm chart; `false` for none. Default: the chart that "
        "Lapwing generates for the stack, if an environment has `target: kubernetes`; of a project "
        "in `projects`, none.",
    )
    files: list[NonEmpty] = Field(
        default_factory=list,
        description="More files to upload, relative to this file; `*` is allowed in the last part.",
        examples=["dist/*.whl"],
    )


class Mirrored(StrictModel):
    """A third-party image that is copied to the team's registry at each release.

    It is tagged with the version of the source without a `v`, the release's version and `latest`.
    The digest is recorded in the release; a tag of the source that was moved since is an error.
    """

    image: NonEmpty = Field(
        description="The image with its version.", examples=["fleetdm/fleet:v4.93.0"]
    )
    name: NonEmpty | None = Field(
        None, description="Its name in the team's registry. Default: the last part of the image's."
    )
    platforms: list[NonEmpty] = Field(
        default_factory=list,
        description="Only these platforms of a multi-platform image. Default: all.",
        examples=["linux/amd64"],
    )


Mirror = Annotated[
    list[Annotated[Mirrored, short_form("image", NonEmpty | Mirrored)]],
    Field(description="Third-party images to copy to the team's registry."),
]


class ReleasedProject(Parts):
    """A project with its versions and tags, in a repository of several.

    A commit counts for each project whose folder it changes. Its images are those of the services
    that are built in this folder.
    """

    path: NonEmpty = Field(description="The folder of the project.", examples=["services/api"])
    include: list[NonEmpty] = Field(
        default_factory=list,
        description="Folders and files of other projects whose changes count, too.",
        examples=["libs/common"],
    )
    mirror: Mirror = Field(default_factory=list)


class Release(Parts):
    """How versions are chosen and released with `lapwing release`."""

    policy: Literal["feature-merge", "conventional-commits", "stated"] = Field(
        "feature-merge",
        description="`feature-merge`: a merge of a branch in `features` raises the major version, "
        "anything else the patch. `conventional-commits`: breaking changes raise the major version "
        "(before 1.0.0 the minor), `feat` the minor (before 1.0.0 the patch), `fix` and others the "
        "patch. `stated`: the version in `version_file`, if it is higher than the last.",
    )
    branches: list[Annotated[Branch, short_form("name", NonEmpty | Branch)]] = Field(
        default_factory=lambda: [Branch(name="main"), Branch(name="master")],
        json_schema_extra={"default": ["main", "master"]},
        description="The branches that releases are made from: `main`, "
        "`{name: next, prerelease: rc}`, `1.x`.",
        min_length=1,
    )
    features: list[NonEmpty] = Field(
        ["feature/*"], description="Branches whose merge raises the major version.", min_length=1
    )
    docs: list[NonEmpty] = Field(
        DOCUMENTS,
        description="Documentation files, as patterns like in .gitignore. A change of only these "
        "is not released.",
    )
    forge: Annotated[Forge | None, short_form("kind", ForgeName | Forge)] = Field(
        None, description="Default: GitHub if the git remote is there, else Gitea."
    )
    projects: dict[Name, ReleasedProject] = Field(
        default_factory=dict,
        description="Projects of this repository that are released separately, by name.",
    )


Registry = Annotated[
    NonEmpty | None,
    Field(
        description="The team's registry and its folder for images. Default for mirrored images: "
        "the forge's own registry and the owner's folder.",
        examples=["registry.example/team"],
    ),
]
Releases = Annotated[Release, Field(description="How versions are chosen and released.")]


class Delivery(Protocol):
    """What a stack and a project share."""

    @property
    def registry(self) -> str | None:
        """Return the team's registry and folder."""
        ...

    @property
    def release(self) -> Release:
        """Return how versions are chosen and released."""
        ...

    @property
    def mirror(self) -> list[Mirrored]:
        """Return the third-party images to copy."""
        ...


class Project(StrictModel):
    """A project that is released and is not a stack."""

    project: Name = Field(description="The name of the project.")
    registry: Registry = None
    release: Releases = Field(default_factory=Release)
    mirror: Mirror = Field(default_factory=list)
