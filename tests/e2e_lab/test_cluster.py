"""How the end-to-end run reads nodes: mounts, processes' containers, connections. No cluster."""

import pytest

from e2e.cluster import Capability, container_ids, open_connections, parse_mount
from e2e.existing import VARIABLES, ExistingCluster
from e2e.lab.commands import LabError
from e2e.lab.s3_client import Credentials, at_url
from e2e.store import parse_access_log


def test_a_line_of_mountinfo_is_read_with_its_escapes() -> None:
    line = r"36 35 98:0 /a\040tree /mnt/2 ro,nosuid master:1 - ext4 /dev/loop1 rw,errors=continue"
    found = parse_mount(line)
    assert (found.root, found.target, found.fs_type) == ("/a tree", "/mnt/2", "ext4")
    assert found.options == {"ro", "nosuid"}
    assert found.source == "/dev/loop1"


def test_established_connections_to_one_address_are_counted() -> None:
    lines = [
        "  sl  local_address rem_address   st tx_queue rx_queue",
        "   0: 0B004D0A:A1B2 02004D0A:1B9E 01 00000000:00000000",
        "   1: 0B004D0A:A1B4 02004D0A:1B9E 06 00000000:00000000",
        "   2: 0B004D0A:A1B6 02004D0A:1B9F 01 00000000:00000000",
    ]
    assert open_connections(lines, "10.77.0.2", 7070) == 1


def test_a_pods_containers_are_named_as_their_runtime_names_them() -> None:
    statuses = [
        {"name": "a", "containerID": "containerd://11"},
        {"name": "b", "containerID": "containerd://22"},
        {"name": "c"},
    ]
    pod = {"status": {"containerStatuses": statuses}}
    assert container_ids(pod) == ["11", "22"]
    assert container_ids(pod, "b") == ["22"]


def test_an_access_log_is_read_with_spaces_in_its_keys() -> None:
    line = (
        "owner bucket [25/Nov/2026:22:00:00 +0000] 10.77.0.11 lab1 7 REST.GET.OBJECT a key"
        ' /bucket/a%20key 206 - 100 200 1 1 "-" "agent"'
    )
    [request] = parse_access_log(f"{line}\n")
    assert (request.remote, request.user, request.key) == ("10.77.0.11", "lab1", "a key")
    assert (request.status, request.error) == (206, "")


def test_an_existing_cluster_says_what_it_must_be_told() -> None:
    with pytest.raises(LabError, match="E2E_S3_ENDPOINT"):
        ExistingCluster({})


def test_an_existing_cluster_refuses_what_it_does_not_offer() -> None:
    cluster = ExistingCluster(dict.fromkeys(VARIABLES, "x"))
    with pytest.raises(LabError, match="NODES"):
        cluster.require(Capability.NODES)
    assert cluster.store.credentials == Credentials("x", "x")


def test_a_store_is_asked_by_the_name_in_its_url() -> None:
    assert at_url("http://10.77.0.2:7070").host == "10.77.0.2:7070"
