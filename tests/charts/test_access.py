"""Each part has its own ServiceAccount, and each of these may do exactly what is listed here."""

import itertools

import pytest

from support.charts import FULLNAME, NAMESPACE, Object, Rendering

Right = tuple[str, str, str]


def rights(group: str, resources: str, verbs: str) -> set[Right]:
    return set(itertools.product([group], resources.split(), verbs.split()))


EXPECTED: dict[str, set[Right]] = {
    "operator": rights("modelcache.io", "modelcaches", "list watch")
    | rights("modelcache.io", "modelcaches/status", "patch")
    | rights("modelcache.io", "cachenodes", "list watch create patch")
    | rights("batch", "jobs", "list watch create delete")
    | rights("", "nodes", "list watch")
    | rights("", "pods", "get list")
    | rights("", "events", "list create"),
    "agent": rights("authentication.k8s.io", "tokenreviews", "create")
    | rights("modelcache.io", "cachenodes", "get watch")
    | rights("modelcache.io", "cachenodes/status", "patch"),
    "csi": rights("modelcache.io", "modelcaches", "get") | rights("", "events", "create"),
}


def granted(role: Object) -> set[Right]:
    found: set[Right] = set()
    for rule in role["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}
        found |= set(itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"]))
    return found


@pytest.mark.parametrize("part", sorted(EXPECTED))
def test_a_part_may_do_what_is_listed_and_nothing_else(rendered: Rendering, part: str) -> None:
    name = f"{FULLNAME}-{part}"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}
    bindings = [b for b in rendered.all("ClusterRoleBinding") if subject in b["subjects"]]
    assert [b["roleRef"]["name"] for b in bindings] == [name]
    assert all(b["subjects"] == [subject] for b in bindings)
    assert granted(rendered.one("ClusterRole", f"-{part}")) == EXPECTED[part]


def test_no_other_right_is_bound_to_anybody(rendered: Rendering) -> None:
    assert not rendered.all("Role")
    assert not rendered.all("RoleBinding")
    assert len(rendered.all("ClusterRoleBinding")) == len(EXPECTED)
    assert {a["metadata"]["name"] for a in rendered.all("ServiceAccount")} == {
        f"{FULLNAME}-{part}" for part in EXPECTED
    }


def test_nobody_reads_secrets_or_has_a_wildcard(rendered: Rendering) -> None:
    for role in rendered.all("ClusterRole"):
        for group, resource, verb in granted(role):
            assert "*" not in (group, resource, verb)
            assert not resource.startswith("secrets")


def test_a_token_is_mounted_only_where_a_pod_asks_for_it(rendered: Rendering) -> None:
    assert all(a["automountServiceAccountToken"] is False for a in rendered.all("ServiceAccount"))
    for part, pod in rendered.pod_specs().items():
        assert pod["automountServiceAccountToken"] is (part in EXPECTED)
        assert pod.get("serviceAccountName") == (f"{FULLNAME}-{part}" if part in EXPECTED else None)


def test_who_may_create_pods_may_create_model_caches_and_who_may_look_may_look(
    rendered: Rendering,
) -> None:
    def aggregated_to(role: Object) -> set[str]:
        prefix = "rbac.authorization.k8s.io/aggregate-to-"
        return {
            label.removeprefix(prefix)
            for label, value in role["metadata"]["labels"].items()
            if label.startswith(prefix) and value == "true"
        }

    edit = rendered.one("ClusterRole", "-edit")
    assert aggregated_to(edit) == {"edit", "admin"}
    assert granted(edit) == rights(
        "modelcache.io", "modelcaches", "create update patch delete deletecollection"
    )
    view = rendered.one("ClusterRole", "-view")
    assert aggregated_to(view) == {"view", "edit", "admin"}
    assert granted(view) == rights("modelcache.io", "modelcaches", "get list watch")
