"""Where a model comes from and by what it is read: the part of a ModelCache that names a source."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from modelcache_api.objects import ApiModel, ObjectName, cel
from modelcache_api.schemes import SCHEMES

#: Arbitrary.
MAX_PATTERNS = 32

_SCHEME_RULE = " || ".join(f"self.startsWith('{scheme}://')" for scheme in SCHEMES)
_SCHEME_MESSAGE = "unknown scheme; supported: " + ", ".join(f"{name}://" for name in SCHEMES)


class SecretRef(ApiModel):
    """A Secret of the same namespace."""

    name: ObjectName
    """Name of the Secret."""


class ConfigMapKeyRef(ApiModel):
    """A key of a ConfigMap of the same namespace."""

    name: ObjectName
    """Name of the ConfigMap."""

    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] = (
        "ca.crt"
    )
    """Key within the ConfigMap."""


class Credentials(ApiModel):
    """By what the source is read: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "[has(self.secretRef), has(self.serviceAccountName), has(self.anonymous)]"
                ".filter(given, given).size() == 1",
                "name exactly one of secretRef, serviceAccountName and anonymous",
            )
        )
    )

    secret_ref: SecretRef | None = None
    """A Secret of this namespace with the keys of its provider, such as AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY, GOOGLE_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY or HF_TOKEN. It is mounted
    into the prefetch Job only."""

    service_account_name: ObjectName | None = None
    """A ServiceAccount of this namespace whose workload identity may read the source. The
    prefetch Job runs as it."""

    anonymous: Literal[True] | None = None
    """Read the source without credentials."""


class Source(ApiModel):
    """What to cache: where it is and by what it is read."""

    uri: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1024,
            json_schema_extra=cel((_SCHEME_RULE, _SCHEME_MESSAGE)),
        ),
    ]
    """Where the model is: s3://bucket/prefix, gs://bucket/prefix,
    abfs://container@account.dfs.core.windows.net/prefix, hf://org/name@revision, or the https://
    URL of a file list (modelcache.json) or a single file. Every object beneath it is a file of
    the model."""

    endpoint: (
        Annotated[
            str,
            Field(
                max_length=512,
                json_schema_extra=cel(
                    (
                        r"self.matches('^https?://[^/@\\s]+(/[^\\s]*)?$')",
                        "an endpoint is http(s)://host[:port], without a user name",
                    )
                ),
            ),
        ]
        | None
    ) = None
    """Address of a compatible store or a mirror, such as https://minio.storage:9000. Unset: the
    provider's own."""

    region: Annotated[str, Field(max_length=64, pattern=r"^[a-zA-Z0-9-]+$")] | None = None
    """Region of the store. Unset: as the store says, or us-east-1."""

    ca_config_map_ref: ConfigMapKeyRef | None = None
    """Certificates (PEM) of a private CA that signed the endpoint's certificate."""

    requester_pays: bool = False
    """Have the reader's account pay for requests and egress (S3 and GCS buckets that ask so)."""

    virtual_hosts: bool = False
    """Write the bucket into the endpoint's host name, as some S3-compatible stores want it."""

    include: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...],
        Field(max_length=MAX_PATTERNS),
    ] = ()
    """Shell patterns of the paths to take, such as *.safetensors. Empty: all."""

    exclude: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...],
        Field(max_length=MAX_PATTERNS),
    ] = ()
    """Shell patterns of the paths to leave out, such as *.bin; they win over include."""

    credentials: Credentials
    """By what the source is read. Never stored outside this namespace."""
