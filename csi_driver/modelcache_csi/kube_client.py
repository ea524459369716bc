"""Asks the API server what the plugin may know: ModelCaches, by name; and posts Events on pods.

The API server may be away while nodes go on: `find_model_cache` then gives the last answer it
had, or `UNKNOWN`, and the agent decides by its own proofs. Requests are short and never retried
here; the kubelet's next call is the retry.
"""

import json
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pydantic
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from modelcache_api.errors import ModelCacheNotFoundError
from modelcache_api.model_cache import PLURAL
from modelcache_api.names import GROUP, VERSION
from modelcache_api.objects import ApiModel, ObjectMeta

#: A pod's start waits for this answer. Arbitrary; some hundred times an API server's usual one.
REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=2.0)
#: ModelCaches whose last answer is kept. Arbitrary; more than a node has room for models.
MAX_REMEMBERED = 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownModelCache:
    """What the plugin needs of a ModelCache.

    `uid` is empty and `revisions` None when the API server could not be asked. `revision` is the
    current one; `problem` says, for people, what keeps the model from being there.
    """

    uid: str = ""
    revision: str | None = None
    revisions: frozenset[str] | None = None
    problem: str | None = None


UNKNOWN = KnownModelCache()


class _Condition(ApiModel):
    type: str
    status: str
    reason: str = ""
    message: str = ""


class _Previous(ApiModel):
    revision: str


class _Status(ApiModel):
    revision: str | None = None
    previous_revisions: tuple[_Previous, ...] = ()
    conditions: tuple[_Condition, ...] = ()


class _Object(ApiModel):
    """As much of a ModelCache as is read here; a newer operator may write the rest as it likes."""

    metadata: ObjectMeta
    status: _Status = _Status()


def known_model_cache(document: Any) -> KnownModelCache:
    """Raises pydantic.ValidationError: not a ModelCache."""
    found = _Object.model_validate(document)
    status = found.status
    revisions = {previous.revision for previous in status.previous_revisions}
    if status.revision:
        revisions.add(status.revision)
    return KnownModelCache(
        uid=found.metadata.uid,
        revision=status.revision,
        revisions=frozenset(revisions),
        problem=_problem_in(status),
    )


def _problem_in(status: _Status) -> str | None:
    for condition in status.conditions:
        if (condition.type, condition.status) in {("Resolved", "False"), ("Degraded", "True")}:
            text = f"{condition.type}={condition.status} ({condition.reason})"
            return f"{text}: {condition.message}" if condition.message else text
    return None


class KubeClient:
    """Two verbs of the Kubernetes API. `api` None: there is no API server to ask, ever."""

    def __init__(self, api: client.ApiClient | None) -> None:
        self._api = api
        self._last: OrderedDict[tuple[str, str], KnownModelCache] = OrderedDict()

    async def find_model_cache(self, namespace: str, name: str) -> KnownModelCache:
        """Raises ModelCacheNotFoundError: the API server says that there is none."""
        key = (namespace, name)
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}"
        try:
            found = known_model_cache(await self._call("GET", path))
        except _NotFoundError:
            self._last.pop(key, None)
            raise ModelCacheNotFoundError(
                f"there is no ModelCache {name!r} in namespace {namespace!r}"
            ) from None
        except (_AwayError, pydantic.ValidationError) as e:
            if self._api is not None:
                log.warning("the API server cannot be asked for a ModelCache: %s", e)
            return self._last.get(key, UNKNOWN)
        self._last[key] = found
        self._last.move_to_end(key)
        if len(self._last) > MAX_REMEMBERED:
            self._last.popitem(last=False)
        return found

    async def post_event(self, namespace: str, event: dict[str, Any]) -> None:
        """Best effort: an Event is a courtesy, nothing depends on it."""
        try:
            await self._call("POST", f"/api/v1/namespaces/{namespace}/events", event)
        except (_AwayError, _NotFoundError) as e:
            if self._api is not None:
                log.warning("an Event could not be posted: %s", e)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        if self._api is None:
            raise _AwayError("no API server is configured")
        request = await self._api.param_serialize(
            method,
            path,
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            answer = await self._api.call_api(*request, _request_timeout=REQUEST_TIMEOUT)
            raw = await answer.read()
        except (aiohttp.ClientError, ApiException, OSError, TimeoutError) as e:
            raise _AwayError(f"{type(e).__name__}: {e}") from e
        if answer.status == 404:
            raise _NotFoundError(path)
        if answer.status >= 300:
            raise _AwayError(f"{method} {path} answers {answer.status}")
        try:
            return json.loads(raw)
        except ValueError as e:
            raise _AwayError(f"{method} {path} answers no JSON") from e


class _AwayError(Exception):
    """The API server cannot be asked now, or does not let us."""


class _NotFoundError(Exception):
    """The API server says that there is no such object."""


@asynccontextmanager
async def connected() -> AsyncIterator[KubeClient]:
    """A client of the cluster this runs in, of $KUBECONFIG, or of none."""
    settings = await _configuration()
    if settings is None:
        log.warning("no API server: neither in a cluster nor $KUBECONFIG; agents decide alone")
        yield KubeClient(None)
        return
    async with client.ApiClient(configuration=settings) as api:
        yield KubeClient(api)


async def _configuration() -> client.Configuration | None:
    settings = client.Configuration()
    settings.retries = None
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        config.load_incluster_config(client_configuration=settings)
        return settings
    if path := os.environ.get("KUBECONFIG"):
        await config.load_kube_config(
            config_file=path, client_configuration=settings, persist_config=False
        )
        return settings
    return None
