"""The generated CustomResourceDefinitions: in step with the models, structural, bounded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelcache_api import crd
from modelcache_api.schemes import SCHEMES, SECRET_KEYS

ROOT = Path(__file__).parents[2]
CRDS = [crd.model_cache_crd(), crd.cache_node_crd()]
IDS = ["ModelCache", "CacheNode"]


def _schema(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def _nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema below the metadata that the API server itself bounds."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        if path or name in {"spec", "status"}:
            yield from _nodes(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from _nodes(schema[name], f"{path}[]")


@pytest.mark.parametrize("folder", ["crds", "charts/modelcache/files/crds"])
def test_the_files_are_what_the_models_say(folder):
    for name, text in crd.rendered().items():
        assert (ROOT / folder / name).read_text() == text, "run `make generate`"


@pytest.mark.parametrize("document", CRDS, ids=IDS)
def test_every_string_list_and_map_is_bounded(document):
    unbounded = []
    for path, node in _nodes(_schema(document)):
        match node.get("type"):
            case "string":
                is_bounded = "maxLength" in node or "enum" in node or node.get("format")
            case "array":
                is_bounded = "maxItems" in node
            case "object" if "additionalProperties" in node:
                is_bounded = "maxProperties" in node
            case "integer":
                is_bounded = "minimum" in node and node["format"] in {"int32", "int64"}
            case _:
                is_bounded = True
        if not is_bounded:
            unbounded.append(path)
    assert not unbounded


@pytest.mark.parametrize("document", CRDS, ids=IDS)
def test_every_schema_is_structural(document):
    for path, node in _nodes(_schema(document)):
        assert "type" in node, path
        assert not {"$ref", "anyOf", "allOf", "oneOf", "title", "const"} & set(node), path
        if node["type"] == "object":
            assert ("properties" in node) != ("additionalProperties" in node) or not path, path


@pytest.mark.parametrize("document", CRDS, ids=IDS)
def test_every_field_says_what_it_is(document):
    for path, node in _nodes(_schema(document)):
        if not path.endswith("[]"):
            assert len(node.get("description", "")) > 3, path
            assert node["description"].endswith("."), path


def test_an_unknown_scheme_is_refused_with_the_known_ones_named():
    uri = _schema(CRDS[0])["properties"]["spec"]["properties"]["source"]["properties"]["uri"]
    (rule,) = uri["x-kubernetes-validations"]
    assert rule == {
        "rule": " || ".join(f"self.startsWith('{scheme}://')" for scheme in SCHEMES),
        "message": "unknown scheme; supported: "
        "s3://, gs://, abfs://, abfss://, az://, hf://, https://, http://",
    }


def test_credentials_are_exactly_one_of_three():
    source = _schema(CRDS[0])["properties"]["spec"]["properties"]["source"]
    assert "credentials" in source["required"]
    (rule,) = source["properties"]["credentials"]["x-kubernetes-validations"]
    assert "size() == 1" in rule["rule"]
    assert set(source["properties"]["credentials"]["properties"]) == {
        "secretRef",
        "serviceAccountName",
        "anonymous",
    }


def test_every_key_of_a_secret_is_documented():
    text = (ROOT / "docs" / "SOURCES.md").read_text()
    missing = [key for keys in SECRET_KEYS.values() for key in keys if f"`{key}`" not in text]
    assert missing == []


def test_the_keys_of_the_secret_are_explained():
    source = _schema(CRDS[0])["properties"]["spec"]["properties"]["source"]
    text = source["properties"]["credentials"]["properties"]["secretRef"]["description"]
    assert all(key in text for key in ("AWS_ACCESS_KEY_ID", "GOOGLE_CREDENTIALS", "HF_TOKEN"))


def test_conditions_are_a_map_by_type():
    conditions = _schema(CRDS[0])["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


@pytest.mark.parametrize("document", CRDS, ids=IDS)
def test_helm_keeps_the_crds_and_status_is_a_subresource(document):
    assert document["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    (version,) = document["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    assert version["additionalPrinterColumns"]


def test_the_yaml_reads_back_as_what_was_rendered():
    documents = [yaml.safe_load(text) for text in crd.rendered().values()]
    assert documents == CRDS


def test_the_generator_writes_into_each_folder_it_is_given(tmp_path):
    crd.main([str(tmp_path / "a"), str(tmp_path / "b")])
    assert {path.name for path in tmp_path.glob("*/*")} == set(crd.rendered())
    assert len(list(tmp_path.glob("*/*"))) == 4
