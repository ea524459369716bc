"""Every way in which credentials reach a prefetch, planted with what can be found again."""

import base64
import datetime as dt
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from support.fault_origin import FaultOrigin, Tls
from support.fault_proxy import FaultProxy
from support.faults import Status, expired
from support.origins import azure_store, hub, identities, s3_store, web
from support.origins.harness import Harness
from support.origins.identities import IdentityService
from support.origins.kinds import Stores

#: What a workload's token file holds: the kubelet's, which nobody here checks.
WORKLOAD_TOKEN = "canary-workload-token-6a2d"
_KEY_ID, _SECRET, _SESSION = "AKIACANARY0000000001", "canary-secret-c6a1", "canary-session-91d3"
_ENTRA_SECRET = "canary-client-secret-0b7e"
#: What no signed URL lacks, by kind of store.
_SIGNATURES = ("X-Amz-Signature", "X-Amz-Security", "X-Goog-Signature", "&sig=")


@dataclass(frozen=True)
class Planted:
    """One source, and by what it is read.

    Attributes:
        store: What the source's objects are read through.
        arguments: Of ``modelcache prefetch``.
        environment: Of its process.
        canaries: What must be found nowhere else.
        crosses: Which of them the store sees with every request for an object.
        expired: How the store says that a grant is past its time.
        speaks_json: Its refusals are JSON; else XML.
        service: Who gives the credentials, where they are not the Secret's own.
    """

    store: FaultProxy
    arguments: tuple[str | Path, ...]
    canaries: tuple[str, ...]
    crosses: str
    expired: Status
    speaks_json: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    service: IdentityService | None = None


class Stand:
    """What planting takes: stores, identity services, and a folder, all ended by `stack`."""

    def __init__(self, stack: ExitStack, stores: Stores, folder: Path) -> None:
        self.stores = stores
        self.folder = folder
        self.identities = stack.enter_context(IdentityService())
        tls = Tls()
        self.entra = stack.enter_context(IdentityService(tls))
        self._entra_ca = tls.ca_pem
        self.amazon = stack.enter_context(FaultOrigin())
        self.amazon_proxy = stack.enter_context(FaultProxy(self.amazon.port, s3_store.is_object))
        self.token_file = folder / "workload-token"
        self.token_file.write_text(WORKLOAD_TOKEN)

    def s3(self, name: str, **given: Any) -> Planted:
        self.amazon.put("models/m/config.json", b"{}")
        self.amazon.put("models/m/weights", WEIGHTS)
        endpoint = ("--endpoint", self.amazon_proxy.url, "--region", "us-east-1")
        arguments = ("s3://models/m", *endpoint, *self.secret(name, given.pop("secret", {})))
        return Planted(
            self.amazon_proxy,
            arguments,
            crosses="X-Amz-Signature",
            expired=expired("AccessDenied"),
            **given,
        )

    def of(self, store: Harness, secret: dict[str, str] | None, **given: Any) -> Planted:
        """A model at `store`; `secret` None: the environment alone says who one is."""
        store.put("config.json", b"{}")
        store.put("weights", WEIGHTS)
        options = store.options()
        arguments: list[str | Path] = [options.uri]
        if options.endpoint:
            arguments += ["--endpoint", options.endpoint]
        if options.ca_file:
            arguments += ["--ca-file", options.ca_file]
        arguments += self.secret(store.kind, secret)
        return Planted(
            store.proxy,
            tuple(arguments),
            expired=store.expired(),
            speaks_json=store.kind in ("gcs", "hf"),
            **given,
        )

    def secret(self, name: str, keys: object) -> tuple[str | Path, ...]:
        """Mounted as the kubelet does it."""
        if not isinstance(keys, dict) or not keys:
            return ()
        folder = self.folder / f"secret-{name}"
        folder.mkdir()
        for key, value in keys.items():
            (folder / key).write_text(value + "\n")
        return ("--credentials-dir", folder)

    def entra_environment(self) -> dict[str, str]:
        ca_file = self.folder / "entra-ca.pem"
        ca_file.write_text(self._entra_ca)
        return {"AZURE_AUTHORITY_HOST": self.entra.url, "SSL_CERT_FILE": str(ca_file)}


#: Two chunks and a bit, so that a fetch has a middle.
WEIGHTS = bytes(range(256)) * (40 << 12)


_AMAZON_SECRET = {
    "AWS_ACCESS_KEY_ID": _KEY_ID,
    "AWS_SECRET_ACCESS_KEY": _SECRET,
    "AWS_SESSION_TOKEN": _SESSION,
}
_AMAZON_CANARIES = (*_AMAZON_SECRET.values(), *_SIGNATURES)
_AMAZON_GIVEN = (*identities.AMAZON_KEYS, WORKLOAD_TOKEN, *_SIGNATURES)


def s3_secret(stand: Stand) -> Planted:
    return stand.s3("s3", secret=_AMAZON_SECRET, canaries=_AMAZON_CANARIES)


def s3_environment(stand: Stand) -> Planted:
    return stand.s3("s3", environment=_AMAZON_SECRET, canaries=_AMAZON_CANARIES)


def s3_web_identity(stand: Stand) -> Planted:
    """IRSA: a token file, and STS gives keys for it."""
    environment = {
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/reader",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(stand.token_file),
        "AWS_ENDPOINT_URL_STS": f"{stand.identities.url}/sts",
    }
    return stand.s3("s3", environment=environment, canaries=_AMAZON_GIVEN, service=stand.identities)


def s3_pod_identity(stand: Stand) -> Planted:
    """EKS Pod Identity: a token file, and the node's agent gives keys for it."""
    environment = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{stand.identities.url}/amazon",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(stand.token_file),
    }
    return stand.s3("s3", environment=environment, canaries=_AMAZON_GIVEN, service=stand.identities)


def gcs_account(stand: Stand) -> Planted:
    """A service account's key signs, and is changed for a token that lists."""
    store = stand.stores.get("gcs")
    account = json.loads((store.secrets / "GOOGLE_CREDENTIALS").read_text())
    account["token_uri"] = f"{stand.identities.url}/google"
    key_lines = account["private_key"].splitlines()
    return stand.of(
        store,
        {"GOOGLE_CREDENTIALS": json.dumps(account)},
        canaries=(key_lines[1], key_lines[-2], identities.GOOGLE_TOKEN, *_SIGNATURES),
        crosses="X-Goog-Signature",
        service=stand.identities,
    )


def gcs_federation(stand: Stand) -> Planted:
    """A workload's token is changed for one of Google's, which is then granted."""
    federation = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{stand.identities.url}/google",
        "credential_source": {"file": str(stand.token_file)},
    }
    return stand.of(
        stand.stores.get("gcs"),
        {"GOOGLE_CREDENTIALS": json.dumps(federation)},
        canaries=(WORKLOAD_TOKEN, identities.GOOGLE_TOKEN),
        crosses=identities.GOOGLE_TOKEN,
        service=stand.identities,
    )


def gcs_workload_identity(stand: Stand) -> Planted:
    """GKE: its metadata server gives the token of the pod's ServiceAccount."""
    host = stand.identities.host
    return stand.of(
        stand.stores.get("gcs"),
        None,
        environment={"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host},
        canaries=(identities.GOOGLE_TOKEN,),
        crosses=identities.GOOGLE_TOKEN,
        service=stand.identities,
    )


def azure_key(stand: Stand) -> Planted:
    return stand.of(
        stand.stores.get("azure"),
        {"AZURE_STORAGE_ACCOUNT_KEY": azure_store.KEY},
        canaries=(azure_store.KEY, *_SIGNATURES),
        crosses="&sig=",
    )


def azure_sas(stand: Stand) -> Planted:
    store = stand.stores.get("azure")
    container = store.uri.removeprefix("az://").partition("/")[0]
    sas = generate_container_sas(
        azure_store.ACCOUNT,
        container,
        account_key=azure_store.KEY,
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1),
    )
    return stand.of(
        store,
        {"AZURE_STORAGE_SAS_TOKEN": sas},
        canaries=(sas, sas.rpartition("sig=")[2], *_SIGNATURES),
        crosses=sas,
    )


def azure_principal(stand: Stand) -> Planted:
    """A client's secret is changed for a token of Entra's, and that for a key that signs."""
    keys = {
        "AZURE_TENANT_ID": "tenant",
        "AZURE_CLIENT_ID": "client",
        "AZURE_CLIENT_SECRET": _ENTRA_SECRET,
    }
    return stand.of(
        stand.stores.get("entra"),
        keys,
        environment=stand.entra_environment(),
        canaries=(_ENTRA_SECRET, stand.entra.entra_token, *_SIGNATURES),
        crosses="&sig=",
        service=stand.entra,
    )


def azure_workload_identity(stand: Stand) -> Planted:
    """Entra Workload ID: the kubelet's token is changed for one of Entra's."""
    environment = {
        **stand.entra_environment(),
        "AZURE_TENANT_ID": "tenant",
        "AZURE_CLIENT_ID": "client",
        "AZURE_FEDERATED_TOKEN_FILE": str(stand.token_file),
    }
    return stand.of(
        stand.stores.get("entra"),
        None,
        environment=environment,
        canaries=(WORKLOAD_TOKEN, stand.entra.entra_token, *_SIGNATURES),
        crosses="&sig=",
        service=stand.entra,
    )


def hub_token(stand: Stand) -> Planted:
    return stand.of(
        stand.stores.get("hf"), {"HF_TOKEN": hub.TOKEN}, canaries=(hub.TOKEN,), crosses=hub.TOKEN
    )


def web_bearer(stand: Stand) -> Planted:
    keys = {"HTTP_BEARER_TOKEN": web.TOKEN}
    return stand.of(stand.stores.get("https"), keys, canaries=(web.TOKEN,), crosses=web.TOKEN)


def web_basic(stand: Stand) -> Planted:
    return stand.of(
        stand.stores.get("https"),
        {"HTTP_USERNAME": web.USER, "HTTP_PASSWORD": web.PASSWORD},
        canaries=(web.PASSWORD, web.BASIC, base64.b64encode(web.PASSWORD.encode()).decode()),
        crosses=web.BASIC,
    )


def _by_name(*made: Callable[[Stand], Planted]) -> dict[str, Callable[[Stand], Planted]]:
    return {one.__name__: one for one in made}


#: What a service gives for something else.
GIVEN = _by_name(
    *(s3_web_identity, s3_pod_identity),
    *(gcs_account, gcs_federation, gcs_workload_identity),
    *(azure_principal, azure_workload_identity),
)
#: Every credential that docs/SOURCES.md lists, by the name of its function.
PATHS = GIVEN | _by_name(
    s3_secret, s3_environment, azure_key, azure_sas, hub_token, web_bearer, web_basic
)
