"""The chart's values: documented, checked, and refused when misspelt."""

import json
import re

import pytest
import yaml

from support.charts import CHART, Chart, ChartRefusedError

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def leaves(values: dict[str, object], prefix: str = "") -> set[str]:
    """Dotted names of all values; an empty map is a value, one with keys is a group."""
    found: set[str] = set()
    for key, value in values.items():
        if isinstance(value, dict) and value and key != "resources":
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found.add(prefix + key)
    return found


def test_helm_finds_nothing_to_complain_about(chart: Chart) -> None:
    assert "0 chart(s) failed" in chart.run("lint", str(CHART), "--strict", values={})


@pytest.mark.parametrize(
    "values",
    [
        {"hostNetwork": True},
        {"agent": {"hostnetwork": True}},
        {"agent": {"ports": {"peers": 1}}},
        {"operator": {"replicas": 3}},
        {"image": {"repo": "x"}},
        {"agent": {"tolerations": [{"key": "a", "operator": "Exist"}]}},
    ],
)
def test_an_unknown_value_is_refused(chart: Chart, values: dict[str, object]) -> None:
    with pytest.raises(ChartRefusedError, match="don't meet the specifications"):
        chart.render(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"node": {"dataDir": "relative/path"}},
        {"network": {"allowedRanges": ["the cluster"]}},
        {"node": {"dataDir": "/models/"}},
        {"node": {"kubeletRoot": ""}},
        {"agent": {"capacity": "lots"}},
        {"agent": {"ports": {"peer": 0}}},
        {"logLevel": "verbose"},
        {"image": {"digest": "sha256:abc"}},
        {"authorities": "corp.crt"},
        {"mirrors": [{"source": "s3://m/", "mirrors": []}]},
        {"mirrors": [{"source": "s3://m/", "mirrors": [{"region": "eu-1"}]}]},
        {"mirrors": [{"source": "m/", "mirrors": [{"uri": "s3://m/"}]}]},
        {"mirrors": [{"source": "hf://", "mirrors": [{"endpoint": "hub.eu"}]}]},
    ],
)
def test_an_impossible_value_is_refused(chart: Chart, values: dict[str, object]) -> None:
    with pytest.raises(ChartRefusedError, match="don't meet the specifications"):
        chart.render(**values)


def test_the_schema_knows_every_value_and_is_strict_throughout() -> None:
    def check(schema: dict[str, object], values: dict[str, object], path: str) -> None:
        assert schema.get("additionalProperties") is False, path
        properties = schema["properties"]
        assert isinstance(properties, dict)
        assert set(values) <= set(properties), path
        for key, value in values.items():
            if isinstance(value, dict) and "properties" in properties[key]:
                check(properties[key], value, f"{path}.{key}")

    check(SCHEMA, VALUES, "values")


def test_the_chart_s_readme_lists_every_value() -> None:
    listed = set(re.findall(r"^\| `([^`]+)` \|", (CHART / "README.md").read_text(), re.MULTILINE))
    assert listed == leaves(VALUES)
