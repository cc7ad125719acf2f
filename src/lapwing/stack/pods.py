"""The models of `pods`: scheduling, annotations and pull secrets of pods on Kubernetes.

Lapwing's keys are snake_case. Tolerations and `affinity` have the field names of the Kubernetes
API, so that they can be pasted from a manifest. Each field is validated.

Source: Kubernetes API reference, PodSpec v1 (Toleration, Affinity), v1.35.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from lapwing.stack.fields import LabelKey, LabelValue, ObjectName, StrictModel

MAX_ANNOTATION_BYTES = 256 * 1024
"""What an API server accepts: the sum of all keys and values of an object."""
Weight = Annotated[int, Field(ge=1, le=100)]


class KubernetesField(StrictModel):
    """A part of the API of Kubernetes; its keys are spelled as there."""

    model_config = ConfigDict(alias_generator=to_camel)


class Toleration(KubernetesField):
    """A toleration of a node taint."""

    key: LabelKey | None = Field(
        None, description="The key of the taint. Default: all keys, with `operator: Exists`."
    )
    operator: Literal["Equal", "Exists"] = Field("Equal", description="How `value` is compared.")
    value: LabelValue | None = Field(None, description="The value of the taint, with `Equal`.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="The effect of the taint. Default: all effects."
    )
    toleration_seconds: int | None = Field(
        None,
        le=2**63 - 1,
        description="How long pods stay on a node that gets the taint, with `NoExecute`.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise ValueError("`operator: Exists` has no `value`; remove it, or write `Equal`")
        if self.operator == "Equal" and not self.key:
            raise ValueError("`key` is missing; without one, write `operator: Exists`")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("`tolerationSeconds` is only for `effect: NoExecute`")
        return self


class NodeRequirement(KubernetesField):
    """A requirement of the labels, or fields, of a node."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[str] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_values(self.operator, self.values)
        if self.operator in ("Gt", "Lt") and not (
            len(self.values or ()) == 1 and (self.values or [""])[0].lstrip("-").isdigit()
        ):
            raise ValueError(f"`operator: {self.operator}` needs one whole number in `values`")
        return self


class LabelRequirement(KubernetesField):
    """A requirement of the labels of pods or namespaces."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[LabelValue] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_values(self.operator, self.values)
        return self


def _check_values(operator: str, values: list[str] | None) -> None:
    if operator in ("In", "NotIn") and not values:
        raise ValueError(f"`operator: {operator}` needs `values`")
    if operator in ("Exists", "DoesNotExist") and values:
        raise ValueError(f"`operator: {operator}` has no `values`")


class NodeTerm(KubernetesField):
    """Requirements of a node, all of which it has to meet."""

    match_expressions: list[NodeRequirement] | None = None
    match_fields: list[NodeRequirement] | None = None


class NodeTerms(KubernetesField):
    """Terms, one of which a node has to meet."""

    node_selector_terms: list[NodeTerm] = Field(min_length=1)


class PreferredNodes(KubernetesField):
    """Nodes to prefer, with a weight."""

    weight: Weight
    preference: NodeTerm


class NodeAffinity(KubernetesField):
    """The nodes of pods, by the labels of nodes."""

    required_during_scheduling_ignored_during_execution: NodeTerms | None = None
    preferred_during_scheduling_ignored_during_execution: list[PreferredNodes] | None = None


class LabelSelector(KubernetesField):
    """A selector of pods or namespaces by their labels."""

    match_labels: dict[LabelKey, LabelValue] | None = None
    match_expressions: list[LabelRequirement] | None = None


class PodTerm(KubernetesField):
    """A term of pod affinity: pods, and the topology in which their location counts."""

    topology_key: LabelKey
    label_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    namespaces: list[ObjectName] | None = None
    match_label_keys: list[LabelKey] | None = None
    mismatch_label_keys: list[LabelKey] | None = None


class PreferredPods(KubernetesField):
    """Pods to prefer or avoid, with a weight."""

    weight: Weight
    pod_affinity_term: PodTerm


class PodAffinity(KubernetesField):
    """The nodes of pods, by the pods that run there."""

    required_during_scheduling_ignored_during_execution: list[PodTerm] | None = None
    preferred_during_scheduling_ignored_during_execution: list[PreferredPods] | None = None


class Affinity(KubernetesField):
    """The affinity of pods, as in Kubernetes: to nodes, to other pods, and against other pods."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class Pods(StrictModel):
    """Settings of pods (Kubernetes)."""

    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict,
        description="Labels that a node has to have to run the pods.",
        examples=[{"pool": "apps"}],
    )
    tolerations: list[Toleration] = Field(
        default_factory=list,
        description="Taints of nodes that the pods tolerate, with the fields of Kubernetes.",
        examples=[[{"key": "pool", "value": "apps", "effect": "NoSchedule"}]],
    )
    affinity: Affinity | None = Field(
        None,
        description="Node and pod affinity of the pods, with the fields of Kubernetes: "
        "`nodeAffinity`, `podAffinity`, `podAntiAffinity`.",
    )
    annotations: dict[LabelKey, str] = Field(
        default_factory=dict,
        description="Annotations of the pods.",
        examples=[{"example.com/team": "shop"}],
    )
    image_pull_secrets: list[ObjectName] = Field(
        default_factory=list,
        description="Secrets in the namespace with registry credentials. Create them with "
        "`kubectl create secret docker-registry`.",
        examples=[["mirror-login"]],
    )

    @field_validator("annotations")
    @classmethod
    def _check_size(cls, annotations: dict[str, str]) -> dict[str, str]:
        if sum(len(f"{k}{v}".encode()) for k, v in annotations.items()) > MAX_ANNOTATION_BYTES:
            raise ValueError("the annotations are larger than the 256 KiB that Kubernetes accepts")
        return annotations

    @property
    def spec(self) -> dict[str, Any]:
        """The fields of a pod's spec, as Kubernetes spells them."""
        written = {
            "nodeSelector": self.node_selector,
            "tolerations": [_written(t) for t in self.tolerations],
            "affinity": _written(self.affinity) if self.affinity else None,
            "imagePullSecrets": [{"name": name} for name in self.image_pull_secrets],
        }
        return {key: value for key, value in written.items() if value}

    @property
    def metadata(self) -> dict[str, Any]:
        """The fields of a pod's metadata."""
        return {"annotations": self.annotations} if self.annotations else {}


def _written(field: KubernetesField) -> dict[str, Any]:
    return field.model_dump(by_alias=True, exclude_unset=True, exclude_none=True)
