"""The tightest limit above a process counts."""

import pytest

from modelcache_node.transfer.memory import memory_limit_bytes
from modelcache_node.transfer.movers import default_limits


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_version_2_takes_the_tightest_of_all_levels(tmp_path):
    write(tmp_path, "proc/self/cgroup", "0::/pods/one\n")
    write(tmp_path, "sys/fs/cgroup/pods/one/memory.max", "max\n")
    write(tmp_path, "sys/fs/cgroup/pods/memory.max", "1073741824\n")
    assert memory_limit_bytes(tmp_path) == 1 << 30


def test_version_1_is_read_from_its_own_hierarchy(tmp_path):
    write(tmp_path, "proc/self/cgroup", "5:memory:/pod\n1:name=systemd:/\n")
    write(tmp_path, "sys/fs/cgroup/memory/pod/memory.limit_in_bytes", "536870912\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{2**63 - 4096}\n")
    assert memory_limit_bytes(tmp_path) == 512 << 20


def test_in_a_container_the_path_may_lead_nowhere(tmp_path):
    write(tmp_path, "proc/self/cgroup", "0::/../../pod\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", "1073741824\n")
    assert memory_limit_bytes(tmp_path) == 1 << 30


def test_no_limit_is_none(tmp_path):
    assert memory_limit_bytes(tmp_path) is None


@pytest.mark.parametrize("count", [1, 8])
def test_all_movers_together_stay_far_below_a_limit(count):
    limits = default_limits(1 << 30, count)
    assert (limits.dirty_bytes + limits.keep_cached_bytes) * count < (1 << 30) / 2
