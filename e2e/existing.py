"""The cluster that KUBECONFIG names, with an S3 store that exists too.

Nothing of it can be stopped, slowed or looked into: scenarios that must are left out. What has to
be known of it stands in the environment; `VARIABLES` says what.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from e2e.cluster import Capability, Cluster
from e2e.lab.commands import LabError
from e2e.lab.s3_client import Credentials, S3Client, at_url
from e2e.store import Request, Store

VARIABLES = {
    "E2E_IMAGE": "the image, where the nodes find it, with its tag",
    "E2E_TEST_IMAGE": "the image for test pods (Dockerfile, target e2e), with its tag",
    "E2E_S3_ENDPOINT": "http(s)://host[:port] of an S3 store that pods and this machine reach",
    "AWS_ACCESS_KEY_ID": "who may make buckets there",
    "AWS_SECRET_ACCESS_KEY": "the secret of that",
}
#: Words for `helm --set`, separated by spaces; optional.
CHART_VALUES = "E2E_CHART_VALUES"
REGION = "E2E_S3_REGION"


class ExistingStore(Store):
    """A store at an address, which only serves."""

    def __init__(self, url: str, region: str, credentials: Credentials) -> None:
        self.url = url
        self.region = region
        self.credentials = credentials

    def client(self, credentials: Credentials | None = None) -> S3Client:
        return S3Client(at_url(self.url), self.region, credentials or self.credentials)

    def requests(self) -> list[Request]:
        raise _not_offered()

    def sent_bytes(self) -> int:
        raise _not_offered()

    def limit(self, bits_per_s: int | None) -> None:
        raise _not_offered()

    def stop(self) -> None:
        raise _not_offered()

    def start(self) -> None:
        raise _not_offered()


class ExistingCluster(Cluster):
    """Whatever kubectl and helm reach."""

    name = "existing"
    capabilities: frozenset[Capability] = frozenset()

    def __init__(self, environment: Mapping[str, str]) -> None:
        missing = [
            f"{name} ({what})" for name, what in VARIABLES.items() if name not in environment
        ]
        if missing:
            raise LabError("set in the environment: " + "; ".join(missing))
        self.image = environment["E2E_IMAGE"]
        self.test_image = environment["E2E_TEST_IMAGE"]
        self.chart_values = environment.get(CHART_VALUES, "").split()
        self.store = ExistingStore(
            environment["E2E_S3_ENDPOINT"],
            environment.get(REGION, "us-east-1"),
            Credentials(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]),
        )

    def kubectl_words(self) -> list[str]:
        return ["kubectl"]

    def helm_words(self) -> list[str]:
        return ["helm"]

    def on_node(self, node: str, *words: str) -> str:
        raise _not_offered()

    def stop_node(self, node: str) -> None:
        raise _not_offered()

    def start_node(self, node: str) -> None:
        raise _not_offered()

    def wipe_models(self, node: str) -> None:
        raise _not_offered()

    def stop_api_server(self) -> None:
        raise _not_offered()

    def start_api_server(self) -> None:
        raise _not_offered()


@contextmanager
def running(environment: Mapping[str, str]) -> Iterator[ExistingCluster]:
    """The cluster, as it is found and left."""
    yield ExistingCluster(environment)


def _not_offered() -> LabError:
    return LabError("a cluster that exists does not offer this: the scenario must ask beforehand")
