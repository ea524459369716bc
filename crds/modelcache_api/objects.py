"""What the Kubernetes objects of this project share: spelling, metadata, bounded words.

Objects are read leniently (a field of a newer version is ignored) and are immutable once
parsed. The text beneath a field is what ``kubectl explain`` shows. Every string, list and map
carries a bound; a test walks the generated schema and refuses one that does not.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

MAX_INT64 = (1 << 63) - 1

#: Name of a namespaced object that may be a path or host name: RFC 1123 subdomain.
ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"),
]
Namespace = Annotated[str, Field(max_length=63)]
Uid = Annotated[str, Field(max_length=64)]
Revision = Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]
#: A word of `modelcache_api.reasons`. A plain string here, so that an older reader does not
#: choke on a newer writer's word.
ReasonWord = Annotated[str, Field(max_length=64, pattern=r"^([A-Za-z]([A-Za-z0-9_]*))?$")]
Message = Annotated[str, Field(max_length=1024)]
Bytes = Annotated[int, Field(ge=0, le=MAX_INT64)]
Generation = Annotated[int, Field(ge=0, le=MAX_INT64)]
Count = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]


def listed_by(key: str) -> dict[str, Any]:
    """What a schema says of a list that holds each value of the field `key` once."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


def cel(*rules: tuple[str, str]) -> dict[str, Any]:
    """`rules` (CEL expression, message) as the extra of a field or a model."""
    return {
        "x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]
    }


class ApiModel(BaseModel):
    """Part of an object: camelCase on the wire, immutable, unknown fields ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def wire(self) -> dict[str, Any]:
        """As the API server takes it; what is unset is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class ObjectMeta(ApiModel):
    """The part of an object's metadata that we read."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
