"""The chart as helm renders it, parsed."""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.tools import ROOT

CHART = ROOT / "charts" / "modelcache"
RELEASE = "mc"
NAMESPACE = "modelcache-system"
FULLNAME = "mc-modelcache"
#: What a helm that knows no cluster is told it talks to.
KUBE_VERSION = "1.34.0"

Object = dict[str, Any]


class ChartRefusedError(Exception):
    """Helm would not render; the text is its own."""


@dataclass(frozen=True)
class Rendering:
    """The objects of one rendering."""

    objects: tuple[Object, ...]

    def all(self, kind: str) -> list[Object]:
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str, name: str = "") -> Object:
        """The only object of a kind whose name ends in `name`."""
        found = [o for o in self.all(kind) if o["metadata"]["name"].endswith(name)]
        assert len(found) == 1, f"{len(found)} objects of kind {kind} and name …{name}"
        return found[0]

    def pod_specs(self) -> dict[str, Object]:
        """Pod specifications by component, the test's pod among them."""
        specs: dict[str, Object] = {}
        for found in self.objects:
            if found["kind"] in ("DaemonSet", "Deployment"):
                template = found["spec"]["template"]
                component = template["metadata"]["labels"]["app.kubernetes.io/component"]
                specs[component] = template["spec"]
            elif found["kind"] == "Pod":
                specs["test"] = found["spec"]
        return specs


@dataclass(frozen=True)
class Chart:
    """The chart and a helm to render it with."""

    helm: Path

    def render(self, **values: object) -> Rendering:
        """Raises ChartRefusedError with helm's message."""
        text = self.run("template", RELEASE, str(CHART), values=values)
        return Rendering(tuple(o for o in yaml.safe_load_all(text) if o))

    def run(self, verb: str, *args: str, values: dict[str, object]) -> str:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(values, file)
            file.flush()
            done = subprocess.run(
                [
                    *(str(self.helm), verb, *args, "--values", file.name),
                    *("--namespace", NAMESPACE, "--kube-version", KUBE_VERSION),
                ],
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
            )
        if done.returncode:
            raise ChartRefusedError(done.stdout + done.stderr)
        return done.stdout
