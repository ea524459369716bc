"""What a prefetch Job's command is told, from a ModelCache and from what all Jobs share."""

from dataclasses import dataclass

from modelcache_api.model_cache import Layout, ModelCache, ModelCacheSpec
from modelcache_api.names import AGENT_AUDIENCE
from modelcache_api.source import Source

AGENT_DIR = "/var/run/modelcache/agent"
AGENT_CA_FILE, AUTHORITIES_FILE = "ca.crt", "authorities.crt"  # in AGENT_DIR
CREDENTIALS_DIR = "/var/run/modelcache/credentials"
SOURCE_CA_DIR = "/var/run/modelcache/source-ca"


@dataclass(frozen=True, slots=True)
class JobSettings:
    """What is the same for all Jobs.

    `agent_ca_pem`: who signed the agents' certificate. `mirrors`: as `modelcache_api.mirrors`.
    `authorities_pem`: the administrator's, trusted for every source beside the public ones.
    """

    image: str
    image_pull_policy: str
    image_pull_secrets: tuple[str, ...]
    agent_url: str
    agent_ca_pem: str
    https_proxy: str = ""
    http_proxy: str = ""
    no_proxy: str = ""
    mirrors: str = ""
    authorities_pem: str = ""


@dataclass(frozen=True, slots=True)
class JobWish:
    """One Job that should exist."""

    node: str
    request: str
    attempt: int


def prefetch_arguments(model_cache: ModelCache, wish: JobWish, settings: JobSettings) -> list[str]:
    """What a Job that fetches runs."""
    source, meta = model_cache.spec.source, model_cache.metadata
    arguments = [
        "prefetch",
        source.uri,
        *agent_arguments(settings),
        f"--model-cache={meta.name}",
        f"--model-cache-uid={meta.uid}",
        f"--request={wish.request}",
        "--json",
    ]
    if source.endpoint:
        arguments.append(f"--endpoint={source.endpoint}")
    if source.region:
        arguments.append(f"--region={source.region}")
    if settings.mirrors and model_cache.status.request == wish.request:
        arguments.append(f"--resolved={model_cache.status.revision}")
    arguments += access_arguments(source)
    arguments += [f"--include={pattern}" for pattern in source.include]
    arguments += [f"--exclude={pattern}" for pattern in source.exclude]
    return arguments + _shape_arguments(model_cache.spec)


def _shape_arguments(spec: ModelCacheSpec) -> list[str]:
    """How the model shall look, and what it must be."""
    arguments = [] if spec.layout is Layout.PLAIN else [f"--layout={spec.layout}"]
    if spec.verify.expected_digest:
        arguments.append(f"--expect-revision={spec.verify.expected_digest}")
    if spec.verify.safetensors_only:
        arguments.append("--safetensors-only")
    return arguments


def agent_arguments(settings: JobSettings) -> list[str]:
    """How a Job reaches its node's agent, and where it says why it failed."""
    mirrors = [f"--mirrors={settings.mirrors}"] if settings.mirrors else []
    trust = [f"--also-trust={AGENT_DIR}/{AUTHORITIES_FILE}"] if settings.authorities_pem else []
    return [
        *mirrors,
        *trust,
        f"--agent={settings.agent_url}",
        f"--token-file={AGENT_DIR}/token",
        f"--agent-ca-file={AGENT_DIR}/{AGENT_CA_FILE}",
        f"--agent-server-name={AGENT_AUDIENCE}",
        "--termination-log=/dev/termination-log",
    ]


def access_arguments(source: Source) -> list[str]:
    """By what a Job reads the source."""
    arguments: list[str] = []
    if source.ca_config_map_ref:
        arguments.append(f"--ca-file={SOURCE_CA_DIR}/ca.crt")
    if source.requester_pays:
        arguments.append("--requester-pays")
    if source.virtual_hosts:
        arguments.append("--virtual-hosts")
    if source.credentials.anonymous:
        arguments.append("--anonymous")
    if source.credentials.secret_ref:
        arguments.append(f"--credentials-dir={CREDENTIALS_DIR}")
    return arguments
