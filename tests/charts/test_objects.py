"""The cluster's own objects: driver, definitions, admission policies, the test pod."""

import re

import yaml

from modelcache_api.names import AGENT_AUDIENCE, CSI_DRIVER, LABEL_ROLE
from support.charts import CHART, FULLNAME, NAMESPACE, Chart, Object, Rendering
from support.tools import ROOT


def expressions(rendered: Rendering, policy: str) -> str:
    spec = rendered.one("ValidatingAdmissionPolicy", policy)["spec"]
    return "\n".join(v["expression"] for v in [*spec.get("variables", []), *spec["validations"]])


def test_the_driver_object_promises_what_the_plugin_does(rendered: Rendering) -> None:
    driver = rendered.one("CSIDriver")
    assert driver["metadata"]["name"] == CSI_DRIVER
    assert driver["spec"] == {
        "attachRequired": False,
        "podInfoOnMount": True,
        "volumeLifecycleModes": ["Ephemeral", "Persistent"],
        "fsGroupPolicy": "None",
        "seLinuxMount": False,
        "requiresRepublish": False,
        "storageCapacity": False,
    }


def test_the_definitions_are_those_that_are_generated_from_the_models(rendered: Rendering) -> None:
    generated = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    copied = {path.name: path.read_text() for path in (CHART / "files/crds").glob("*.yaml")}
    assert copied == generated
    by_name = {crd["metadata"]["name"]: crd for crd in rendered.all("CustomResourceDefinition")}
    assert by_name.keys() == {"modelcaches.modelcache.io", "cachenodes.modelcache.io"}
    for text in generated.values():
        crd = yaml.safe_load(text)
        assert by_name[crd["metadata"]["name"]]["spec"] == crd["spec"]


def test_the_definitions_and_nothing_else_outlive_the_release(rendered: Rendering) -> None:
    kept = {
        o["kind"]
        for o in rendered.objects
        if o["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
    }
    assert kept == {"CustomResourceDefinition"}


def test_the_definitions_can_be_left_to_somebody_else(chart: Chart) -> None:
    assert not chart.render(crds={"install": False}).all("CustomResourceDefinition")


def test_every_policy_fails_closed_and_is_bound(rendered: Rendering) -> None:
    policies = {p["metadata"]["name"]: p for p in rendered.all("ValidatingAdmissionPolicy")}
    bindings = rendered.all("ValidatingAdmissionPolicyBinding")
    assert {b["spec"]["policyName"] for b in bindings} == policies.keys()
    assert all(b["spec"]["validationActions"] == ["Deny"] for b in bindings)
    assert all(p["spec"]["failurePolicy"] == "Fail" for p in policies.values())
    assert policies.keys() == {
        f"{FULLNAME}-{name}" for name in ("jobs", "job-access", "node-status", "operator-only")
    }


def test_a_node_s_status_is_tied_to_the_node_in_the_writer_s_token(rendered: Rendering) -> None:
    text = expressions(rendered, "-node-status")
    assert f"system:serviceaccount:{NAMESPACE}:{FULLNAME}-agent" in text
    assert "authentication.kubernetes.io/node-name" in text
    assert "variables.node == [object.metadata.name]" in text


def test_the_operator_s_jobs_are_tied_to_the_release_s_image(chart: Chart) -> None:
    rendered = chart.render(image={"repository": "r/mc", "tag": "9"})
    assert "variables.container.image == 'r/mc:9'" in expressions(rendered, "-jobs")
    [condition] = rendered.one("ValidatingAdmissionPolicy", "-jobs")["spec"]["matchConditions"]
    assert f"'system:serviceaccount:{NAMESPACE}:{FULLNAME}-operator'" in condition["expression"]
    assert f"'{AGENT_AUDIENCE}'" in expressions(rendered, "-jobs")


def test_policies_name_the_accounts_of_a_renamed_release(chart: Chart) -> None:
    rendered = chart.render(fullnameOverride="models")
    text = expressions(rendered, "-node-status") + expressions(rendered, "-operator-only")
    assert set(re.findall(r"system:serviceaccount:[^']+", text)) == {
        f"system:serviceaccount:{NAMESPACE}:models-agent",
        f"system:serviceaccount:{NAMESPACE}:models-operator",
    }


def test_in_the_pod_network_prefetch_jobs_of_any_namespace_reach_the_agent(chart: Chart) -> None:
    rendered = chart.render(agent={"hostNetwork": False})
    rules = rendered.one("NetworkPolicy", "-agent")["spec"]["ingress"]
    [job] = [rule for rule in rules if rule["ports"] == [{"port": "job", "protocol": "TCP"}]]
    assert {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {LABEL_ROLE: "prefetch"}},
    } in job["from"]


def test_every_object_says_which_release_it_belongs_to(chart: Chart) -> None:
    for found in chart.render(commonLabels={"team": "serving"}).objects:
        labels = found["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "mc"
        assert labels["team"] == "serving"


def test_helm_test_mounts_a_model_when_one_is_named(chart: Chart) -> None:
    def model_volumes(rendered: Rendering) -> list[Object]:
        return [v["csi"] for v in rendered.pod_specs()["test"]["volumes"] if "csi" in v]

    assert not model_volumes(chart.render())
    [volume] = model_volumes(chart.render(helmTest={"modelCache": "tiny"}))
    assert volume["driver"] == CSI_DRIVER
    assert volume["volumeAttributes"] == {"modelCache": "tiny"}
