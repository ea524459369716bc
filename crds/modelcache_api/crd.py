"""Writes the CustomResourceDefinitions from the models: ``python -m modelcache_api.crd DIR…``.

pydantic's JSON schema becomes a structural schema: references are put in their place, titles
and nulls go, integers get a format. What a model cannot say (columns, scope) stands here.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from modelcache_api import cache_node, model_cache
from modelcache_api.names import GROUP, VERSION

_HEADER = "# Generated from crds/modelcache_api by `make generate`; do not edit.\n"
_KEPT = {
    "type", "format", "description", "enum", "pattern", "minLength", "maxLength", "minimum",
    "maximum", "minItems", "maxItems", "minProperties", "maxProperties", "required",
}  # fmt: skip
_INT32_MAX = (1 << 31) - 1

_MODEL_CACHE_COLUMNS = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0),
    ("Nodes", "integer", ".status.nodes.ready", 0),
    ("Desired", "integer", ".status.nodes.desired", 0),
    ("Bytes", "integer", ".status.sizeBytes", 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Source", "string", ".spec.source.uri", 1),
    ("Revision", "string", ".status.revision", 1),
    ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', 1),
)
_CACHE_NODE_COLUMNS = (
    ("Used", "integer", ".status.usedBytes", 0),
    ("Capacity", "integer", ".status.capacityBytes", 0),
    ("Healthy", "boolean", ".status.diskHealthy", 0),
    ("Heartbeat", "date", ".status.heartbeatAt", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Address", "string", ".status.address", 1),
    ("Version", "string", ".status.version", 1),
    ("Store", "string", ".status.storeId", 1),
)


def model_cache_crd() -> dict[str, Any]:
    return _crd(
        model_cache.ModelCache,
        plural=model_cache.PLURAL,
        short_names=model_cache.SHORT_NAMES,
        scope="Namespaced",
        columns=_MODEL_CACHE_COLUMNS,
    )


def cache_node_crd() -> dict[str, Any]:
    return _crd(
        cache_node.CacheNode,
        plural=cache_node.PLURAL,
        short_names=cache_node.SHORT_NAMES,
        scope="Cluster",
        columns=_CACHE_NODE_COLUMNS,
    )


def rendered() -> dict[str, str]:
    """File name to YAML, one per object."""
    crds = {model_cache.PLURAL: model_cache_crd(), cache_node.PLURAL: cache_node_crd()}
    return {
        f"{GROUP}_{plural}.yaml": _HEADER
        + yaml.safe_dump(crd, sort_keys=False, width=100, allow_unicode=True)
        for plural, crd in crds.items()
    }


def _crd(
    model: type[BaseModel],
    *,
    plural: str,
    short_names: Sequence[str],
    scope: str,
    columns: Sequence[tuple[str, str, str, int]],
) -> dict[str, Any]:
    kind = model.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": list(short_names),
                "categories": [
                    "models"
                ],  # not a kind's own name: `kubectl get` would take it for both kinds
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [_column(*column) for column in columns],
                    "schema": {"openAPIV3Schema": structural_schema(model)},
                    "subresources": {"status": {}},
                }
            ],
        },
    }


def _column(name: str, kind: str, path: str, priority: int) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    return column | ({"priority": priority} if priority else {})


def structural_schema(model: type[BaseModel]) -> dict[str, Any]:
    """`model` as a structural schema; metadata is left to the API server."""
    document = model.model_json_schema(by_alias=True)
    schema = _Inliner(document.get("$defs", {})).structural(document)
    for name in ("apiVersion", "kind"):
        schema["properties"][name] = {"type": "string"}
    schema["properties"]["metadata"] = {"type": "object"}
    schema["required"] = [name for name in schema.get("required", ()) if name != "metadata"]
    if not schema["required"]:
        del schema["required"]
    return schema


class _Inliner:
    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions

    def structural(self, node: Mapping[str, Any]) -> dict[str, Any]:
        flat = self._resolved(node)
        found = {key: value for key, value in flat.items() if key in _KEPT}
        found |= {key: value for key, value in flat.items() if key.startswith("x-kubernetes-")}
        if "required" in found:
            found["required"] = list(found["required"])  # one list twice would be a YAML alias
        if "description" in found:
            found["description"] = " ".join(found["description"].split())
        if "const" in flat:
            found["enum"] = [flat["const"]]
        if isinstance(flat.get("default"), str | bool | int) and flat["default"] != "":
            found["default"] = flat["default"]
        if found.get("type") == "integer":
            is_small = flat.get("maximum", _INT32_MAX + 1) <= _INT32_MAX
            found["format"] = "int32" if is_small else "int64"
            if not is_small:
                found.pop("maximum", None)
        if "properties" in flat:
            found["properties"] = {
                name: self.structural(child) for name, child in flat["properties"].items()
            }
        if "items" in flat:
            found["items"] = self.structural(flat["items"])
        if isinstance(flat.get("additionalProperties"), Mapping):
            found["additionalProperties"] = self.structural(flat["additionalProperties"])
        return found

    def _resolved(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """`node` with references followed and ``anyOf [X, null]`` read as X; own keys win."""
        own = {key: value for key, value in node.items() if key not in {"$ref", "anyOf"}}
        if "$ref" in node:
            name = node["$ref"].rsplit("/", 1)[-1]
            return self._resolved(self._definitions[name]) | own
        if "anyOf" in node:
            choices = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
            if len(choices) != 1:
                raise ValueError(f"a structural schema has no unions: {node}")
            return self._resolved(choices[0]) | own
        return own


def main(folders: Sequence[str]) -> None:
    for folder in map(Path, folders):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in rendered().items():
            (folder / name).write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
