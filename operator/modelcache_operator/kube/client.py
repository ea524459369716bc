"""What the operator reads from and writes to the API server, over `kubernetes.aio`.

JSON in and out: the generated models know nothing of our objects, and an object that passes
through them loses the fields that they do not know. Every write is safe to repeat.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config.config_exception import ConfigException

from modelcache_api import cache_node, model_cache
from modelcache_api.errors import UnavailableError
from modelcache_api.names import API_VERSION, GROUP, LABEL_ROLE, VERSION

Body = dict[str, Any]

#: One request, seconds.
_TIMEOUT_S = 30.0
#: Objects per page of a list.
_PAGE = 500
_NOT_FOUND, _CONFLICT = 404, 409

OURS = f"/apis/{GROUP}/{VERSION}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object that is watched: where it is listed, and which of them."""

    plural: str
    path: str
    label_selector: str = ""


MODEL_CACHES = Kind(model_cache.PLURAL, f"{OURS}/{model_cache.PLURAL}")
CACHE_NODES = Kind(cache_node.PLURAL, f"{OURS}/{cache_node.PLURAL}")
JOBS = Kind("jobs", "/apis/batch/v1/jobs", f"{LABEL_ROLE}=prefetch")
NODES = Kind("nodes", "/api/v1/nodes")
KINDS = (NODES, CACHE_NODES, JOBS, MODEL_CACHES)


class KubeError(UnavailableError):
    """The API server refused, or did not answer.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        words: What the API server itself said; empty when there was no answer.
    """

    def __init__(self, message: str, *, status: int = 0, words: str = "") -> None:
        super().__init__(f"{message}: {words}" if words else message)
        self.status = status
        self.words = words

    @property
    def is_refusal(self) -> bool:
        """The same request will be refused again until somebody changes something."""
        return self.status in {400, 403, 422}


async def load_configuration(kubeconfig: str | None) -> Configuration:
    """From the pod's ServiceAccount, or from a kubeconfig where there is none.

    Raises:
        UnavailableError: neither is there.
    """
    configuration = Configuration()
    try:
        if kubeconfig:
            await config.load_kube_config(kubeconfig, client_configuration=configuration)
        else:
            config.load_incluster_config(client_configuration=configuration)
    except (ConfigException, OSError) as e:
        raise UnavailableError(f"no way to the API server: {e}") from e
    return configuration


class KubeClient:
    """One connection pool to the API server; safe for concurrent use within one event loop."""

    def __init__(self, configuration: Configuration) -> None:
        self._api = ApiClient(configuration)

    async def aclose(self) -> None:
        await self._api.close()

    # -- reading

    async def list_all(self, kind: Kind) -> tuple[list[Body], int]:
        """All objects of `kind`, and the resource version they were listed at.

        Raises:
            KubeError: not all could be read.
        """
        items: list[Body] = []
        query = {"limit": str(_PAGE), "labelSelector": kind.label_selector}
        while True:
            page = await self._request("GET", kind.path, query)
            items += page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return items, int(page["metadata"]["resourceVersion"])
            query["continue"] = token

    async def ping(self) -> None:
        """Raises KubeError: the API server is away."""
        await self._request("GET", "/version")

    async def serves_our_kinds(self) -> bool:
        """Whether discovery names our objects yet; it lags a little behind their definitions."""
        try:
            found = await self._request("GET", OURS)
        except KubeError as e:
            if e.status == _NOT_FOUND:
                return False
            raise
        names = {resource["name"] for resource in found["resources"]}
        return {MODEL_CACHES.plural, CACHE_NODES.plural} <= names

    async def get_pod(self, namespace: str, name: str) -> Body | None:
        return await self._request_existing("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")

    async def pods_of_job(self, namespace: str, job: str) -> list[Body]:
        selector = {"labelSelector": f"batch.kubernetes.io/job-name={job}"}
        found = await self._request("GET", f"/api/v1/namespaces/{namespace}/pods", selector)
        pods: list[Body] = found["items"]
        return sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])

    async def events_about(self, namespace: str, uid: str) -> list[Body]:
        """Events about one object, the newest last."""
        selector = {"fieldSelector": f"involvedObject.uid={uid}", "limit": "50"}
        found = await self._request("GET", f"/api/v1/namespaces/{namespace}/events", selector)
        events: list[Body] = found["items"]
        return sorted(events, key=lambda event: event.get("lastTimestamp") or "")

    # -- writing

    async def create_job(self, manifest: Body) -> Body | None:
        """The Job as created; None: it is there already."""
        namespace = manifest["metadata"]["namespace"]
        return await self._create(f"/apis/batch/v1/namespaces/{namespace}/jobs", manifest)

    async def delete_job(self, namespace: str, name: str, uid: str) -> None:
        """Delete this very Job and its pods; one that is gone, or another, is left."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}"
        try:
            await self._request("DELETE", path, body=body)
        except KubeError as e:
            if e.status not in {_NOT_FOUND, _CONFLICT}:
                raise

    async def write_model_cache_status(
        self, namespace: str, name: str, status: Mapping[str, Any]
    ) -> Body | None:
        """The object as written; None: it is gone. `status` replaces what it names."""
        path = f"{OURS}/namespaces/{namespace}/{MODEL_CACHES.plural}/{name}/status"
        return await self._request_existing("PATCH", path, body={"status": status})

    async def create_cache_node(self, name: str, node_uid: str) -> Body | None:
        """A CacheNode that goes when its Node goes; None: it is there already."""
        owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid}
        body = {
            "apiVersion": API_VERSION,
            "kind": cache_node.KIND,
            "metadata": {"name": name, "ownerReferences": [owner]},
            "spec": {},
        }
        return await self._create(CACHE_NODES.path, body)

    async def write_cache_node_spec(self, name: str, spec: Mapping[str, Any]) -> Body | None:
        """The object as written; None: it is gone."""
        path = f"{CACHE_NODES.path}/{name}"
        return await self._request_existing("PATCH", path, body={"spec": spec})

    async def create_event(self, body: Body) -> None:
        """Post an Event; one of the same name is the same Event."""
        await self._create(f"/api/v1/namespaces/{body['metadata']['namespace']}/events", body)

    # -- below

    async def _create(self, path: str, body: Body) -> Body | None:
        try:
            return await self._request("POST", path, body=body)
        except KubeError as e:
            if e.status == _CONFLICT:
                return None
            raise

    async def _request_existing(
        self, method: str, path: str, *, body: Body | None = None
    ) -> Body | None:
        try:
            return await self._request(method, path, body=body)
        except KubeError as e:
            if e.status == _NOT_FOUND:
                return None
            raise

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Body | None = None,
    ) -> Body:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        try:
            call = await self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = await self._api.call_api(*call, _request_timeout=_TIMEOUT_S)
            raw = await answer.read()
        except ApiException as e:
            raise KubeError(f"{method} {path}", status=e.status or 0, words=_message(e)) from e
        except (aiohttp.ClientError, OSError) as e:
            raise KubeError(f"{method} {path}: no answer: {str(e) or type(e).__name__}") from e
        if answer.status >= 300:
            raise KubeError(f"{method} {path}", status=answer.status, words=_words(raw))
        found: Body = json.loads(raw)
        return found


def _message(error: ApiException) -> str:
    return _words(error.body) if error.body else str(error.reason)


def _words(raw: bytes | str) -> str:
    """The API server's own message, if `raw` is a Status."""
    try:
        return str(json.loads(raw)["message"])
    except (ValueError, KeyError, TypeError):
        return str(raw)[:200]
