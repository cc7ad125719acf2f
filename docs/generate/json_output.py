"""Write docs/schema/*.schema.json and docs/reference/json.md: the JSON that commands print.

`python -m docs.generate.json_output` writes them; a test compares them with the committed ones.
Tests validate what commands print against these schemas (tests/json_output.py), where a key that is
not described here is an error. The published schemas allow more keys, because later versions may
add some.

What a command prints is described by the struct that it encodes, or by a struct below where the
command builds the JSON itself. A key is always present, unless its type has `UnsetType`.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from lapwing.agent.backup_manifest import Manifest
from lapwing.desired.history import Entry
from lapwing.load.record import Exchange, Total
from lapwing.observed.status import Status
from lapwing.plan.diff import Change
from lapwing.targets.base import DeployResult
from lapwing.targets.branch_environments import BranchEnvironment
from lapwing.targets.overview import EnvironmentOverview

DOCS = Path(__file__).parents[1]
PAGE = DOCS / "reference/json.md"


class Problem(Struct):
    """An error of the stack file."""

    message: str
    where: str
    hint: str | None


class ErrorFacts(Struct):
    """Why the command failed; `code` is stable, `problems` has all errors of a stack file."""

    code: str
    message: str
    hint: str | None
    where: str | None
    detail: str | None
    problems: list[Problem]


class Error(Struct):
    """The output of every command that fails."""

    error: ErrorFacts


class ProcessState(Struct):
    """Whether the agent is running, or whether Envoy accepts connections."""

    running: bool


class Used(Struct):
    """Measured usage of one replica."""

    cpu: float
    memory: float
    requests: float | None
    requests_max: float | None
    hours: float


class LastFailure(Struct):
    """The newest deployment that failed or was rolled back."""

    commit: str
    time: str
    outcome: Literal["failed", "rolled-back"]
    reason: str | None


class StatusOutput(Status, kw_only=True):
    """The status of an environment. `agent`, `envoy` and `used` are there for machines only.

    `last_failure` is null as soon as a newer deployment has succeeded.
    """

    last_failure: LastFailure | None
    agent: ProcessState | UnsetType = UNSET
    envoy: ProcessState | UnsetType = UNSET
    used: dict[str, Used] | UnsetType = UNSET


class StatusAllOutput(Struct):
    """Every environment that was deployed from this machine. `state` is null on a cluster."""

    environments: list[EnvironmentOverview]


class StatusBranchesOutput(Struct):
    """The environments of branches, the last deployed one first.

    `deployed` is Unix time, `disk` is in bytes. `exists` is null if the branches are not known.
    `releases` are the sizes of its releases in bytes, which are part of `disk`.
    """

    stack: str
    environment: str
    branches: list[BranchEnvironment]


class Removal(Struct):
    """A decision of `down --gone`. If one is `failed`, the exit status is 1."""

    environment: str
    action: Literal["keep", "removed", "would remove", "failed"]
    reason: str


class CheckedService(Struct):
    """A service of the stack file."""

    kind: str
    route: str | None


class CheckOutput(Struct):
    """A valid stack file. `resources` has the kind of each resource."""

    stack: str
    file: str
    services: dict[str, CheckedService]
    resources: dict[str, str]
    environments: list[str]
    problems: list[str]
    notes: list[str]


class Check(Struct):
    """One check. `ok` is null if it could not be made; `detail` has lines of a log."""

    check: str
    ok: bool | None
    seen: str
    detail: str | UnsetType = UNSET


class VerifiedBackup(Struct):
    """The checks of a backup, one for each resource and volume."""

    backup: str
    checks: list[Check]


class Built(Struct):
    """A release that was built, or reused."""

    release: str
    revision: str
    reused: bool


class ShipStep(Struct):
    """A step and its outcome."""

    name: str
    outcome: str
    text: str


class Vulnerability(Struct):
    """A finding of the scan. `fixed` is the version that corrects it."""

    id: str
    package: str
    version: str
    severity: str
    fixed: str | None
    accepted_until: str | None


class ShipOutput(Struct):
    """What was built, tested, scanned and committed."""

    commit: str | None
    services: dict[str, Built]
    images: dict[str, str]
    steps: list[ShipStep]
    findings: list[Vulnerability]
    changes: list[Change]


class ReleaseStep(Struct):
    """A step and its outcome."""

    name: str
    outcome: str
    note: str


class ReleaseOfProject(Struct):
    """The release of one of several projects. `tag` is null if there is nothing to release."""

    name: str
    previous: str
    bump: str | None
    tag: str | None
    skipped: bool
    reason: str
    steps: list[ReleaseStep]


class ReleaseOutput(Struct):
    """A release. `tag` is null if there is nothing to release.

    With `release: {projects: ...}`, `projects` has one for each: then `previous`, `bump` and `tag`
    are null, and `steps` are those of all projects, with their names.
    """

    previous: str | None
    bump: str | None
    tag: str | None
    skipped: bool
    reason: str
    steps: list[ReleaseStep]
    projects: list[ReleaseOfProject] | UnsetType = UNSET
    error: ErrorFacts | UnsetType = UNSET


class CostLine(Struct):
    """An item of the bill per month. An unknown price or amount is null.

    `unit_price_high` is set where only bounds of the price are known.
    """

    item: str
    quantity: float | None
    quantity_high: float | None
    unit: str
    unit_price: float | None
    unit_price_high: float | None
    low: float | None
    expected: float | None
    high: float | None
    source: str | None
    date: str | None
    kind: str | None
    note: str
    environment: str
    project: str
    part: str


class CostSum(Struct):
    """The amount of one environment or project."""

    name: str
    low: float | None
    expected: float | None
    high: float | None


class Saving(Struct):
    """A way to reduce the bill, and the saving per month."""

    name: str
    low: float | None
    high: float | None
    note: str
    used: bool


class UnpricedLine(Struct):
    """An item that is billed, but not counted, and why."""

    environment: str
    item: str
    reason: str


class CostOutput(Struct):
    """An estimate. `unknown` has the items of `unpriced`, `unstated` usage that is not set.

    `at_least` is whether the bill is higher than these totals, because something has no price.
    """

    environment: str
    currency: str
    low: float | None
    expected: float | None
    high: float | None
    at_least: bool
    lines: list[CostLine]
    unpriced: list[UnpricedLine]
    unknown: list[str]
    unstated: list[str]
    environments: list[CostSum]
    projects: list[CostSum]
    levers: list[Saving]
    notes: list[str]
    budget: float | UnsetType | None = UNSET


class CostChange(Struct):
    """An item that differs between two estimates."""

    environment: str
    item: str
    low: float | None
    high: float | None
    before: CostLine | None
    after: CostLine | None


class CostDiff(Struct):
    """The estimates of a git revision and of the stack file, and the differences."""

    revision: str
    before: CostOutput
    after: CostOutput
    changes: list[CostChange]


class BilledItem(Struct):
    """An item as estimated and as billed; null on the side where it does not exist."""

    item: str
    low: float | None
    expected: float | None
    high: float | None
    billed: float | None
    difference: float | None
    note: str


class CostBill(Struct):
    """The comparison with a bill (`--reconcile`)."""

    compared: list[BilledItem]


class PriceSource(Struct):
    """A source of prices, with its age in days and the number of prices."""

    source: str
    kind: str
    date: str
    days: int
    prices: int


class CostSources(Struct):
    """The sources of the price book (`--prices`), the oldest first."""

    sources: list[PriceSource]


class Finding(Struct):
    """A finding of the review. `saves` is in US dollars per month."""

    rule: str
    severity: str
    environment: str
    evidence: str
    advice: str
    saves: float | None


class Written(Struct):
    """Files below a folder."""

    written: list[str]
    removed: list[str]
    unchanged: list[str]


class RenderOutput(Written):
    """Manifests."""

    folder: str
    namespace: str


class BootstrapFiles(Written):
    """What `--render-only` writes."""

    folder: str


class ChartOutput(Written):
    """A chart: its folder or package."""

    chart: str
    name: str
    version: str
    environment: str


class InfraOutput(Struct):
    """Terraform roots, by the name of their folder."""

    folder: str
    roots: dict[str, Written]


class SecretVersion(Struct):
    """A secret; `set` is Unix time."""

    name: str
    version: str
    set: float


class AgentOutput(ProcessState, kw_only=True):
    """The agent. The other keys are there if it is running."""

    pid: int | UnsetType = UNSET
    version: str | UnsetType = UNSET
    port: int | UnsetType = UNSET
    ready: bool | UnsetType = UNSET
    problem: str | UnsetType | None = UNSET
    hint: str | UnsetType | None = UNSET
    code: str | UnsetType | None = UNSET


class BlobCounts(Struct):
    """Blobs by what was done."""

    copied: int
    mounted: int
    present: int


class CopyOutput(Struct):
    """A copied image. `left_out` counts foreign layers that were not copied."""

    source: str
    destination: str
    digest: str
    media_type: str
    tags: list[str]
    blobs: BlobCounts
    left_out: int
    manifests: int
    referrers: int
    bytes_sent: int
    seconds: float


class TagOutput(Struct):
    """A tagged image. `changed` is false if the image had the tag."""

    reference: str
    digest: str
    changed: bool


class DeleteOutput(Struct):
    """What was deleted: a tag, or an image with its tags if `reference` has a digest."""

    reference: str
    digest: str


class TagsOutput(Struct):
    """The tags of a repository."""

    repository: str
    tags: list[str]


class ImagePlatform(Struct):
    """An image of an index."""

    platform: str
    digest: str
    size: int


class Attestation(Struct):
    """An SBOM or a provenance, pushed beside an image."""

    digest: str
    artifact_type: str


class BuiltImage(Struct):
    """A built image. `pushed` has the tags that were written; `blobs` counts what a push did."""

    service: str
    repository: str
    digest: str
    revision: str
    tags: list[str]
    base: str
    base_digest: str | None
    platforms: list[ImagePlatform]
    pushed: list[str]
    blobs: BlobCounts
    bytes_sent: int
    referrers: list[Attestation]
    seconds: float


class BuildOutput(Struct):
    """The built images of a stack."""

    images: list[BuiltImage]


class PinnedImage(Struct):
    """A base image and the digest that its tag names."""

    image: str
    digest: str


class PinOutput(Struct):
    """The lock file and its content."""

    file: str
    images: list[PinnedImage]


class StoredManifest(Struct):
    """A manifest in a registry. `time` is when it was pushed or created, in Unix time."""

    digest: str
    tags: list[str]
    time: float | None
    keep: bool
    reason: str
    deleted: bool


class PrunedImages(Struct):
    """The decisions on the images of a service."""

    service: str
    repository: str
    manifests: list[StoredManifest]


class PruneOutput(Struct):
    """Which images are kept and deleted."""

    dry_run: bool
    repositories: list[PrunedImages]


class ImageLayer(Struct):
    """A layer."""

    digest: str
    size: int
    media_type: str


class ImageConfig(Struct):
    """How the image is run."""

    platform: str
    created: str | None
    user: str | None
    entrypoint: list[str] | None
    command: list[str] | None
    ports: list[str]
    labels: dict[str, str]


class Referrer(Struct):
    """A signature, SBOM or attestation: a digest, or a tag where the registry lacks the API."""

    digest: str | UnsetType = UNSET
    artifact_type: str | UnsetType | None = UNSET
    tag: str | UnsetType = UNSET


class InspectOutput(Struct):
    """An image or an index."""

    reference: str
    name: str
    digest: str
    media_type: str
    size: int
    annotations: dict[str, str]
    platforms: list[ImagePlatform]
    layers: list[ImageLayer]
    config: ImageConfig | None
    referrers: list[Referrer]


class PushChartOutput(Struct):
    """A pushed chart."""

    chart: str
    version: str
    reference: str
    digest: str
    seconds: float


class SwitchFigures(Struct):
    """How clients saw a switch, in seconds."""

    window: float | None
    delay: float | None
    spacing: float | None
    longest: float | None


class DemoStep(Struct):
    """A step of the demo. `old` and `new` are releases of the API."""

    name: str
    verb: str
    outcome: str
    expected: str
    reason: str | None
    commit: str
    old: str
    new: str
    commit_to_switch: float | None
    rolled_back_in: float | None
    switch: SwitchFigures | None
    switch_back: SwitchFigures | None


class DemoOutput(Struct):
    """The requests and steps of a demo. `failures` lists up to 20 failed requests."""

    sent: int
    failed: int
    raced: int
    seconds: float
    versions: dict[str, int]
    traffic: list[Total]
    acts: list[DemoStep]
    failures: list[Exchange]


@dataclass(frozen=True, slots=True)
class Output:
    """What some commands print: one of `types`, or a list of `items`."""

    commands: tuple[str, ...]
    types: tuple[type, ...] = ()
    items: type | None = None
    text: str = ""


OUTPUTS = {
    "error": Output(
        (),
        (Error,),
        text="The output of every command that fails. `code` is stable; `problems` has every "
        "error of an invalid stack file.",
    ),
    "deploy": Output(
        ("deploy", "up", "promote", "abort", "rollback", "down", "restore", "maintenance"),
        (DeployResult,),
        Removal,
        "The same for every target. With `--dry-run`, `outcome` is `dry-run`, `commit` is "
        "null and `changes` lists what would change. `down --gone` prints a list of decisions.",
    ),
    "status": Output(
        ("status",),
        (StatusOutput, StatusBranchesOutput),
        text="One environment; or those of all branches, for an environment with `branches`.",
    ),
    "status-all": Output(("status --all",), (StatusAllOutput,)),
    "history": Output(
        ("history",),
        items=Entry,
        text="Newest first. `outcome` is `in-progress` until the deployment has ended, and stays "
        "`committed` where Argo CD applies it.",
    ),
    "check": Output(("check",), (CheckOutput,)),
    "checks": Output(
        ("verify", "doctor", "image verify"),
        items=Check,
        text="`ok` is null if a check could not be made.",
    ),
    "backup": Output(
        ("backup",),
        (VerifiedBackup,),
        Manifest,
        "`list`: the backups, newest first; `create`: the new one; `verify`: the checks of one.",
    ),
    "ship": Output(("ship",), (ShipOutput,)),
    "release": Output(("release",), (ReleaseOutput,)),
    "cost": Output(
        ("cost",),
        (CostOutput, CostDiff, CostBill, CostSources),
        CostOutput,
        "One estimate; a list of them with `--compare`; both estimates with `--diff`. Amounts "
        "are US dollars per month. `expected` follows from the assumptions in `notes`. If "
        "`unpriced` is not empty, the bill is higher than these totals.",
    ),
    "review": Output(("review",), items=Finding),
    "render": Output(("render",), (RenderOutput,)),
    "chart": Output(("chart",), (ChartOutput,)),
    "infra": Output(("infra",), (InfraOutput,)),
    "bootstrap": Output(
        ("bootstrap",), (BootstrapFiles,), Check, "The checks; with `--render-only` the files."
    ),
    "secret-list": Output(("secret list",), items=SecretVersion),
    "agent-status": Output(("agent status",), (AgentOutput,)),
    "image-build": Output(("image build",), (BuildOutput,)),
    "image-pin": Output(("image pin",), (PinOutput,)),
    "image-prune": Output(("image prune",), (PruneOutput,)),
    "image-copy": Output(
        ("image copy",), (CopyOutput,), CopyOutput, "One copy; a list of them with `--file`."
    ),
    "image-tag": Output(("image tag",), (TagOutput,)),
    "image-delete": Output(("image delete",), (DeleteOutput,)),
    "image-list": Output(("image list",), (TagsOutput,)),
    "image-inspect": Output(("image inspect",), (InspectOutput,)),
    "image-push-chart": Output(("image push-chart",), (PushChartOutput,)),
    "demo": Output(("demo",), (DemoOutput,), text="[The demo](demo.md) describes the steps."),
}
"""By the name of the schema."""


def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of an output."""
    output = OUTPUTS[name]
    types = [*output.types, *([output.items] if output.items else [])]
    parts, definitions = msgspec.json.schema_components(
        [*output.types, *([list[output.items]] if output.items else [])],  # type: ignore[name-defined]
        ref_template="#/$defs/{name}",
    )
    optional = _optional(types)
    for title, part in definitions.items():
        if "description" in part:  # Versions of msgspec differ in the indent of docstrings.
            part["description"] = inspect.cleandoc(part["description"])
        if "properties" in part:
            part["required"] = [k for k in part["properties"] if k not in optional.get(title, ())]
            for value in part["properties"].values():
                value.pop("default", None)
                # Versions of msgspec differ in the position of null.
                value.get("anyOf", []).sort(key=lambda kind: kind == {"type": "null"})
    commands = ", ".join(output.commands)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Output of lapwing {commands}" if commands else "Output of a failed command",
        **(parts[0] if len(parts) == 1 else {"anyOf": list(parts)}),
        "$defs": definitions,
    }


def _optional(types: list[type]) -> dict[str, set[str]]:
    """Return the keys of each struct of this module that may be absent."""
    known = [t for t in (*globals().values(), *types) if isinstance(t, type)]
    return {
        t.__name__: {f.encode_name for f in msgspec.structs.fields(t) if f.default is UNSET}
        for t in known
        if issubclass(t, Struct)
    }


def files() -> dict[Path, str]:
    """Return every generated file with its text."""
    schemas = {name: schema(name) for name in OUTPUTS}
    made = {
        DOCS / f"schema/{name}.schema.json": json.dumps(found, indent=2) + "\n"
        for name, found in schemas.items()
    }
    return {**made, PAGE: HEAD + "".join(_section(n, s) for n, s in schemas.items())}


HEAD = """# JSON output

<!-- Generated from docs/generate/json_output.py by `make docs`. Do not edit. -->

`--output json` prints the result of a command as one JSON document on stdout. Messages and progress
go to stderr. Each section has the keys and their types, and links to the JSON Schema.

Later versions may add keys; keys are not removed or renamed. Every key is present, unless it is
marked with `?`; a value that is not known is `null`. Times are ISO 8601 in UTC, or Unix time where
the type is a number. `{...}` is an object that is written out above in the same section.
"""


def _section(name: str, found: dict[str, Any]) -> str:
    output = OUTPUTS[name]
    title = ", ".join(output.commands) or "Errors"
    kinds = found.get("anyOf", [found])
    shapes = _Shapes(found["$defs"])
    text = "\n\n".join(shapes.write(kind, 0) for kind in kinds)
    about = output.text or _description(found)
    return (
        f"\n## {title}\n\n{about}\n\n```\n{text}\n```\n\n"
        f"Schema: [{name}.schema.json](../schema/{name}.schema.json).\n"
    )


def _description(found: dict[str, Any]) -> str:
    """Return the description of the struct, for an output without a text."""
    place = found.get("items", found)["$ref"].rpartition("/")[2]
    return " ".join(found["$defs"][place]["description"].split())


class _Shapes:
    """Writes types as people read them; an object that was written before is `{...}`."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self.definitions = definitions
        self.written: set[str] = set()

    def write(self, part: dict[str, Any], indent: int) -> str:
        """Write a type; its lines after the first are indented."""
        if "$ref" in part:
            name = part["$ref"].rpartition("/")[2]
            if name in self.written:
                return "{...}"
            self.written.add(name)
            return self.write(self.definitions[name], indent)
        if "anyOf" in part:
            found = [self.write(p, indent) for p in part["anyOf"]]
            return " | ".join(sorted(found, key=lambda text: text == "null"))
        if "enum" in part:
            return " | ".join(json.dumps(value) for value in part["enum"])
        if part.get("type") == "array":
            return f"[{self.write(part.get('items') or {}, indent)}]"
        if "properties" in part:
            return self._object(part, indent)
        if isinstance(part.get("additionalProperties"), dict):
            return f"{{NAME: {self.write(part['additionalProperties'], indent)}}}"
        return str(part.get("type", "any"))

    def _object(self, part: dict[str, Any], indent: int) -> str:
        """Write an object on one line if it fits, else one key per line."""
        keys = [
            f'"{key}"{"" if key in part["required"] else "?"}: {self.write(value, indent + 2)}'
            for key, value in part["properties"].items()
        ]
        line = f"{{{', '.join(keys)}}}"
        if len(line) + indent < 90 and "\n" not in line:
            return line
        blanks = " " * indent
        return "{\n" + "".join(f"{blanks}  {text},\n" for text in keys) + f"{blanks}}}"


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
