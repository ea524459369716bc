"""Makes a lab's keys: an authority, certificates for those who serve, a token for each client."""

import secrets
from collections.abc import Mapping
from pathlib import Path

from e2e.lab.commands import run
from e2e.lab.settings import (
    API_SERVICE_ADDRESS,
    CONTROL_PLANE_ADDRESS,
    S3_ADDRESS,
    Settings,
)

DAYS = 30  # a lab lives for hours
EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")


def create(settings: Settings, nodes: int) -> None:
    """Write all keys, certificates, tokens and kubeconfigs of a lab."""
    pki = settings.pki
    pki.mkdir(mode=0o700, parents=True)
    _authority(pki)
    _certificate(pki, "api", "/CN=kube-apiserver", _api_names())
    # as kubeadm does: the kubelet's webhook asks whether this client may do what it asks
    _certificate(pki, "api-client", "/O=system:masters/CN=kube-apiserver-kubelet-client", None)
    _certificate(pki, "s3", "/CN=s3", f"IP:{S3_ADDRESS},IP:127.0.0.1")
    for index in range(1, nodes + 1):
        name = settings.node_name(index)
        subject = f"/O=system:nodes/CN=system:node:{name}"
        names = f"IP:{settings.node_address(index)},DNS:{name}"
        _certificate(pki, f"kubelet-{name}", subject, names)
    _signing_key(pki)
    tokens = _tokens(settings, nodes)
    (pki / "tokens.csv").write_text(token_file(tokens), encoding="utf-8")
    for name, (user, _groups, token) in tokens.items():
        text = kubeconfig(settings.api_url, pki / "ca.crt", user, token)
        (pki / f"{name}.kubeconfig").write_text(text, encoding="utf-8")


def _tokens(settings: Settings, nodes: int) -> dict[str, tuple[str, str, str]]:
    """Kubeconfig's name → user, group, token."""
    users = {
        "admin": ("admin", "system:masters"),
        "kcm": ("system:kube-controller-manager", ""),
        "scheduler": ("system:kube-scheduler", ""),
        "proxy": ("system:kube-proxy", ""),
    }
    for index in range(1, nodes + 1):
        name = settings.node_name(index)
        users[name] = (f"system:node:{name}", "system:nodes")
    return {name: (*user, secrets.token_hex(16)) for name, user in users.items()}


def token_file(tokens: Mapping[str, tuple[str, str, str]]) -> str:
    """The API server's `--token-auth-file`: token, user, uid, groups."""
    lines = []
    for number, (user, group, token) in enumerate(tokens.values()):
        lines.append(f'{token},{user},{number},"{group}"' if group else f"{token},{user},{number}")
    return "\n".join(lines) + "\n"


def kubeconfig(server: str, authority: Path, user: str, token: str) -> str:
    """A kubeconfig for one user of the lab."""
    return f"""\
apiVersion: v1
kind: Config
clusters: [{{name: lab, cluster: {{server: "{server}", certificate-authority: "{authority}"}}}}]
users: [{{name: "{user}", user: {{token: "{token}"}}}}]
contexts: [{{name: lab, context: {{cluster: lab, user: "{user}"}}}}]
current-context: lab
"""


def _api_names() -> str:
    addresses = (CONTROL_PLANE_ADDRESS, API_SERVICE_ADDRESS, "127.0.0.1")
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
    return ",".join([f"IP:{a}" for a in addresses] + [f"DNS:{n}" for n in names])


def _authority(pki: Path) -> None:
    _openssl(
        *("req", "-x509", *EC_KEY, "-subj", "/CN=lab-ca", "-days", DAYS),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", pki / "ca.key", "-out", pki / "ca.crt"),
    )


def _certificate(pki: Path, name: str, subject: str, alternative_names: str | None) -> None:
    request, extensions = pki / f"{name}.csr", pki / f"{name}.ext"
    lines = ["extendedKeyUsage=serverAuth,clientAuth"]
    if alternative_names:
        lines.append(f"subjectAltName={alternative_names}")
    extensions.write_text("\n".join(lines), encoding="utf-8")
    key = pki / f"{name}.key"
    _openssl("req", *EC_KEY, "-subj", subject, "-keyout", key, "-out", request)
    _openssl(
        *("x509", "-req", "-in", request, "-days", DAYS, "-extfile", extensions),
        *("-CA", pki / "ca.crt", "-CAkey", pki / "ca.key", "-CAcreateserial"),
        *("-out", pki / f"{name}.crt"),
    )
    request.unlink()
    extensions.unlink()


def _signing_key(pki: Path) -> None:
    """The key that signs service accounts' tokens."""
    key = pki / "sa.key"
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
    _openssl("pkey", "-in", key, "-pubout", "-out", pki / "sa.pub")


def _openssl(*words: str | int | Path) -> None:
    run(["openssl", *map(str, words)])
