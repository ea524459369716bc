"""csi-sanity against the real plugin process, agent and keeper; counts are printed.

Once with a controller in front that hands out a complete model, once with one that is on its way
and mounted lazily, and once against the plugin's own socket, without any volume of a controller.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.conformance.front import Front
from e2e.lab.tools import CSI_SANITY, ensure
from support.lazy_node import NAMESPACE, LazyNode
from support.mount_namespace import (
    detach,
    make_shared,
    mount_tmpfs,
    mounts_at,
    unshare_mounts,
)

pytestmark = [pytest.mark.root, pytest.mark.looptime(False), pytest.mark.timeout(900)]

MIB = 1 << 20
#: Services and RPCs that ModelCache does not claim, in the suite's own words. It skips their tests.
NOT_CLAIMED = {
    "Controller Publish, UnpublishVolume not supported",
    "ControllerExpandVolume not supported",
    "ControllerModifyVolume not supported",
    "ControllerPublishVolume not supported",
    "ControllerPublishVolume.readonly field not supported",
    "ControllerUnpublishVolume not supported",
    "CreateSnapshot not supported",
    "DeleteSnapshot not supported",
    "GetCapacity not supported",
    "GroupControllerService not supported",
    "ListSnapshots not supported",
    "ListVolumes not supported",
    "Modify Volume not supported",
    "Modify volume not supported",
    "NodeExpandVolume not supported",
    "NodeStageVolume not supported",
    "NodeUnstageVolume not supported",
    "Snapshot not supported",
    "Volume Cloning not supported",
    "VolumeGroupSnapshots not supported",
}
#: What we say of tests that are left out by name.
LEFT_OUT = "left out: needs a controller, and runs with one"
#: Said when the plugin stands alone: it has no controller.
NO_CONTROLLER = {
    LEFT_OUT,
    "Controller Service not provided: CreateVolume not supported",
    "CreateVolume not supported",
    "DeleteVolume not supported",
}
#: Tests of a controller, or that create a volume without asking whether anybody can. They cannot
#: pass without one, and run in the other two runs.
NEED_A_CONTROLLER = (
    "ControllerGetCapabilities",
    "should remove target path",
    "ValidateVolumeCapabilities",
    "NodeGetVolumeStats should fail when volume does not exist on the specified path",
)


@dataclass
class Outcome:
    """What the suite said."""

    passed: int
    failed: list[str]
    skipped: Counter[str]

    def show(self, name: str) -> None:
        counts = f"passed {self.passed}, failed {len(self.failed)}, skipped {self.skipped.total()}"
        reasons = "".join(f"\n    {n} × {why}" for why, n in sorted(self.skipped.items()))
        sys.stderr.write(f"\ncsi-sanity, {name}: {counts}{reasons}\n")


@pytest.fixture(scope="session")
def program() -> Path:
    return ensure(CSI_SANITY) / "csi-sanity"


@pytest.fixture(scope="session")
def _private_mounts() -> None:
    unshare_mounts()


@pytest.fixture
def home(_private_mounts: None) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="mc-"))
    mount_tmpfs(path)
    (path / "kubelet").mkdir()
    mount_tmpfs(path / "kubelet")
    make_shared(path / "kubelet")
    yield path
    detach(path / "kubelet")
    detach(path)
    shutil.rmtree(path)


def node_with_model(home: Path, *, is_complete: bool) -> LazyNode:
    limit = 1000 * MIB if is_complete else MIB // 4
    node = LazyNode(home, download_limit=limit)
    node.start()
    node.new_model({"config.json": 1000, "w/1.bin": 40 * MIB}, 1)
    node.prefetch(1)
    if is_complete:
        node.until_fetched(120)
    return node


def run_suite(program: Path, home: Path, socket: Path, *flags: str) -> Outcome:
    report = home / "report.json"
    pod = home / "kubelet/pods/uid-1/volumes/kubernetes.io~csi"
    pod.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [
            *(program, f"--csi.endpoint=unix://{socket}", f"--csi.mountdir={pod}/model"),
            *(f"--csi.stagingdir={home}/staging", f"--ginkgo.json-report={report}", *flags),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert report.exists(), done.stdout[-4000:] + done.stderr[-4000:]
    specs = [
        spec
        for suite in json.loads(report.read_text())
        for spec in suite["SpecReports"]
        if spec["LeafNodeType"] == "It"
    ]
    by_state: dict[str, list[dict]] = {}
    for spec in specs:
        by_state.setdefault(spec["State"], []).append(spec)
    bad = ("failed", "panicked", "timedout", "interrupted", "aborted")
    failed = [spec for state in bad for spec in by_state.get(state, [])]
    for spec in failed:
        sys.stderr.write(f"{full_name(spec)}: {spec['Failure']['Message'][:600]}\n")
    skipped = Counter(
        spec["Failure"]["Message"] if "Failure" in spec else LEFT_OUT
        for spec in by_state.get("skipped", [])
    )
    return Outcome(len(by_state.get("passed", [])), [full_name(spec) for spec in failed], skipped)


def full_name(spec: dict) -> str:
    return " ".join([*spec["ContainerHierarchyTexts"], spec["LeafNodeText"]])


@pytest.mark.parametrize("mode", ["wait", "lazy"])
def test_with_a_controller_in_front_every_claimed_service_conforms(
    program: Path, home: Path, mode: str
) -> None:
    node = node_with_model(home, is_complete=mode == "wait")
    context = {
        "modelCache": "model-1",
        "mode": mode,
        "csi.storage.k8s.io/pod.name": "server-0",
        "csi.storage.k8s.io/pod.namespace": NAMESPACE,
        "csi.storage.k8s.io/pod.uid": "uid-1",
    }
    try:
        # As the kubelet once does: it shows that the suite meets what it is meant to meet.
        target = node.publish("uid-0", 1, mode=mode)
        is_lazy = mounts_at(target)[-1].fs_type == "fuse.modelcache"
        assert is_lazy == (mode == "lazy")
        node.unpublish(target)
        with Front(home / "front.sock", home / "csi.sock", context, home):
            outcome = run_suite(program, home, home / "front.sock")
    finally:
        node.stop()
    outcome.show(f"a controller in front, {mode}")
    assert outcome.failed == []
    assert set(outcome.skipped) <= NOT_CLAIMED
    assert outcome.passed > 0


def test_the_plugin_alone_conforms(program: Path, home: Path) -> None:
    node = node_with_model(home, is_complete=True)
    try:
        flags = [f"--ginkgo.skip={name}" for name in NEED_A_CONTROLLER]
        # The suite asks a controller for its capabilities before every test, also where the
        # identity claims none. Here one answers: none.
        flags.append(f"--csi.controllerendpoint=unix://{home}/front.sock")
        with Front(home / "front.sock", home / "csi.sock", None, home):
            outcome = run_suite(program, home, home / "csi.sock", *flags)
    finally:
        node.stop()
    outcome.show("the plugin alone")
    assert outcome.failed == []
    assert set(outcome.skipped) <= NOT_CLAIMED | NO_CONTROLLER
    assert outcome.passed > 0
