"""What may stand in a publish request, and what is said of what may not."""

from pathlib import PurePosixPath

import pytest

from modelcache_api.errors import InvalidRequestError
from modelcache_csi._proto import csi_pb2
from modelcache_csi.errors import PreconditionError
from modelcache_csi.volume_context import Mode, TargetPath, parse_publish
from support.csi_plugin import publish_request

ROOT = PurePosixPath("/var/lib/kubelet")
TARGET = "/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~csi/model/mount"
AccessMode = csi_pb2.VolumeCapability.AccessMode


def _parse(target=TARGET, **changes):
    return parse_publish(publish_request(target, **changes), ROOT)


def test_a_request_of_the_kubelet_is_understood():
    publish = _parse(attributes={"modelCache": "llama", "mode": "wait"})
    assert publish.model_cache == "llama"
    assert publish.mode is Mode.WAIT
    assert publish.revision is None
    assert publish.is_ephemeral
    assert (publish.pod.namespace, publish.pod.name) == ("team", "server-0")
    assert str(publish.target) == TARGET
    assert publish.target.pod_directory == ROOT / "pods/uid-1"


def test_keys_of_kubernetes_that_are_not_known_are_ignored():
    _parse(attributes={"modelCache": "llama", "csi.storage.k8s.io/serviceAccount.tokens": "{}"})


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"modelCache": "llama", "endpoint": "http://x"}, "unknown volume attribute 'endpoint'"),
        ({"modelcache": "llama"}, "unknown volume attribute 'modelcache'"),
        ({}, "volume attribute 'modelCache' is missing"),
        ({"modelCache": "other/llama"}, "cannot name a ModelCache"),
        ({"modelCache": "../llama"}, "cannot name a ModelCache"),
        ({"modelCache": "llama", "mode": "eager"}, "'eager' is none of wait, lazy"),
        ({"modelCache": "llama", "revision": "main"}, "not a revision"),
        ({"modelCache": "llama", "revision": ""}, "not a revision"),
    ],
)
def test_attributes_that_cannot_be_honoured_are_refused_by_name(attributes, message):
    with pytest.raises(InvalidRequestError, match=message):
        _parse(attributes=attributes)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "relative/path",
        "/var/lib/kubelet",
        "/etc/passwd",
        "/var/lib/kubelet/../../etc",
        "/var/lib/kubelet/pods//x",
        "/var/lib/kubelet/pods/x/",
        "/var/lib/kubelet-of-somebody-else/pods/x",
        "//var/lib/kubelet/pods/x",
        "/var/lib/kubelet/" + "x" * 5000,
    ],
)
def test_a_target_that_is_no_path_beneath_the_kubelets_root_is_refused(target):
    with pytest.raises(InvalidRequestError, match="target_path"):
        _parse(target)


@pytest.mark.parametrize("volume_id", ["", "x" * 129, "é" * 65])
def test_a_volume_id_is_present_and_short(volume_id):
    with pytest.raises(InvalidRequestError, match="volume_id"):
        _parse(volume_id=volume_id)


@pytest.mark.parametrize(
    ("mode", "is_served"),
    [
        (AccessMode.SINGLE_NODE_WRITER, True),
        (AccessMode.SINGLE_NODE_READER_ONLY, True),
        (AccessMode.MULTI_NODE_READER_ONLY, True),
        (AccessMode.UNKNOWN, False),
        (AccessMode.MULTI_NODE_SINGLE_WRITER, False),
        (AccessMode.MULTI_NODE_MULTI_WRITER, False),
        (AccessMode.SINGLE_NODE_SINGLE_WRITER, False),
        (AccessMode.SINGLE_NODE_MULTI_WRITER, False),
        (99, False),
    ],
)
def test_only_readers_and_the_kubelets_default_are_served(mode, is_served):
    if is_served:
        _parse(access_mode=mode)
    else:
        with pytest.raises(InvalidRequestError, match="accessModes must be"):
            _parse(access_mode=mode)


def test_a_block_volume_is_refused():
    request = publish_request(TARGET)
    request.volume_capability.block.SetInParent()
    with pytest.raises(InvalidRequestError, match="volumeMode must be Filesystem"):
        parse_publish(request, ROOT)


def test_a_request_without_capability_is_refused():
    request = publish_request(TARGET)
    request.ClearField("volume_capability")
    with pytest.raises(InvalidRequestError, match="volume_capability is missing"):
        parse_publish(request, ROOT)


def test_mount_options_that_would_not_be_honoured_are_refused():
    request = publish_request(TARGET)
    request.volume_capability.mount.mount_flags.extend(["ro", "noexec"])
    with pytest.raises(InvalidRequestError, match="'noexec'"):
        parse_publish(request, ROOT)


@pytest.mark.parametrize("key", ["pod.name", "pod.namespace", "pod.uid"])
def test_without_pod_information_the_csidriver_object_is_to_blame(key):
    request = publish_request(TARGET)
    del request.volume_context[f"csi.storage.k8s.io/{key}"]
    with pytest.raises(PreconditionError, match="podInfoOnMount: true"):
        parse_publish(request, ROOT)


def test_leases_are_named_after_paths_so_that_one_volume_may_have_many():
    one, two = (TargetPath(ROOT, ("pods", uid, "mount")) for uid in ("1", "2"))
    assert one.lease_id != two.lease_id
    assert one.lease_id == TargetPath.parse(str(one), ROOT).lease_id
