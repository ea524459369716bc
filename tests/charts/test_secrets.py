"""The agents' key and certificate: made when nobody brings them, and only then."""

import base64
import ssl
from pathlib import Path

import pytest

from support.charts import Chart, Object, Rendering

OWN_KEY = {"clusterKey": {"existingSecret": "my-key"}}
OWN_CERTIFICATE = {"agentCertificate": {"existingSecret": "my-tls"}}


def decoded(rendered: Rendering, name: str) -> dict[str, bytes]:
    data = rendered.one("Secret", name)["data"]
    return {key: base64.b64decode(value) for key, value in data.items()}


def secret_names(pod: Object) -> dict[str, str]:
    return {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """A TLS handshake in memory; raises what the client raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        done = True
        for side in (asking, answering):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                done = False
        if done:
            return
    raise AssertionError("the handshake does not end")


def contexts(files: dict[str, bytes], folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return server, ssl.create_default_context(cafile=folder / "ca.crt")


def test_the_made_certificate_is_valid_for_the_name_that_jobs_check(
    rendered: Rendering, tmp_path: Path
) -> None:
    server, client = contexts(decoded(rendered, "-agent-tls"), tmp_path)
    shake_hands(server, client, "agent.modelcache.io")


def test_the_made_certificate_is_valid_for_no_other_name(
    rendered: Rendering, tmp_path: Path
) -> None:
    server, client = contexts(decoded(rendered, "-agent-tls"), tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for 'other"):
        shake_hands(server, client, "other.modelcache.io")


def test_the_key_that_could_sign_another_certificate_is_not_kept(rendered: Rendering) -> None:
    assert set(decoded(rendered, "-agent-tls")) == {"ca.crt", "tls.crt", "tls.key"}


def test_the_cluster_key_is_long_and_new_for_every_release(chart: Chart) -> None:
    keys = {decoded(chart.render(), "-cluster-key")["cluster-key"] for _ in range(2)}
    assert len(keys) == 2
    assert all(len(key) == 64 for key in keys)


def test_every_template_of_one_rendering_sees_the_same_secrets(rendered: Rendering) -> None:
    """Else the checksum on the pods would change with the first upgrade, and restart them."""
    checksums = {
        rendered.one(kind, name)["spec"]["template"]["metadata"]["annotations"]["checksum/secrets"]
        for kind, name in (("DaemonSet", "-agent"), ("Deployment", "-operator"))
    }
    assert len(checksums) == 1


def test_two_renderings_with_secrets_of_ones_own_are_equal(chart: Chart) -> None:
    """What a GitOps tool needs: nothing changes unless a value does."""
    assert chart.render(**OWN_KEY, **OWN_CERTIFICATE) == chart.render(**OWN_KEY, **OWN_CERTIFICATE)


def test_secrets_of_ones_own_are_used_and_none_is_made(chart: Chart) -> None:
    rendered = chart.render(**OWN_KEY, **OWN_CERTIFICATE)
    assert not rendered.all("Secret")
    pods = rendered.pod_specs()
    assert secret_names(pods["agent"]) == {"key": "my-key", "tls": "my-tls"}
    assert secret_names(pods["operator"]) == {"agent-ca": "my-tls"}


def test_only_agents_get_the_private_key(rendered: Rendering) -> None:
    for part, pod in rendered.pod_specs().items():
        for volume in pod["volumes"]:
            items = {item["key"] for item in volume.get("secret", {}).get("items", [])}
            assert "tls.key" not in items or part == "agent"
            assert items or "secret" not in volume or volume["name"] == "key"
    assert "key" not in secret_names(rendered.pod_specs()["operator"])
    assert not secret_names(rendered.pod_specs()["csi"])
