"""By what an Azure container is read: a key, a SAS, a principal or a workload's identity."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from azure.core.credentials import AzureSasCredential
from azure.core.credentials_async import AsyncTokenCredential

from modelcache_api.errors import AccessDeniedError
from modelcache_api.schemes import SECRET_KEYS
from modelcache_node.origins.base import SourceOptions
from modelcache_node.origins.credential_files import read_keys, require_keys

_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """At most one of key, SAS and credential; none of them reads what is public."""

    account_name: str | None = None
    account_key: str | None = None
    sas_token: str | None = None
    credential: AsyncTokenCredential | None = None

    @property
    def for_client(self) -> "AzureSasCredential | str | AsyncTokenCredential | None":
        """As the SDK's clients take it."""
        if self.sas_token:
            return AzureSasCredential(self.sas_token.lstrip("?"))
        return self.account_key or self.credential


@asynccontextmanager
async def open_identity(options: SourceOptions) -> AsyncIterator[Identity]:
    """The identity that a source is read by.

    Raises:
        AccessDeniedError: the Secret lacks keys, or there is no identity at all.
    """
    if options.anonymous:
        yield Identity()
        return
    keys = read_keys(options, SECRET_KEYS["az"]) if options.credentials_dir else _ambient()
    name = keys.get("AZURE_STORAGE_ACCOUNT_NAME")
    if key := keys.get("AZURE_STORAGE_ACCOUNT_KEY"):
        yield Identity(name, account_key=key)
    elif sas := keys.get("AZURE_STORAGE_SAS_TOKEN"):
        yield Identity(name, sas_token=sas)
    else:
        async with _credential(keys, options) as credential:
            yield Identity(name, credential=credential)


def _ambient() -> dict[str, str]:
    return {name: os.environ[name] for name in SECRET_KEYS["az"] if os.environ.get(name)}


@asynccontextmanager
async def _credential(
    keys: dict[str, str], options: SourceOptions
) -> AsyncIterator[AsyncTokenCredential]:
    # half a second to import, which keys and SAS do without
    from azure.identity.aio import (  # noqa: PLC0415
        ClientSecretCredential,
        WorkloadIdentityCredential,
    )

    if "AZURE_CLIENT_SECRET" in keys:
        require_keys(keys, _PRINCIPAL)
        async with ClientSecretCredential(*(keys[name] for name in _PRINCIPAL)) as principal:
            yield principal
        return
    # Only what the cluster gives this ServiceAccount: never the node's own identity.
    if (
        options.credentials_dir
        or not Path(os.environ.get("AZURE_FEDERATED_TOKEN_FILE", "")).is_file()
    ):
        raise AccessDeniedError(
            f"no usable credentials for {options.uri}: give AZURE_STORAGE_ACCOUNT_KEY, "
            "AZURE_STORAGE_SAS_TOKEN, a client's secret, a ServiceAccount with workload identity, "
            "or --anonymous"
        )
    async with WorkloadIdentityCredential() as workload:
        yield workload
