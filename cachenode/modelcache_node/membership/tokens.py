"""Who calls: a Job's projected token, reviewed by the API server.

The token must have been made for agents (its audience), be bound to a pod, and that pod must run
on this node. A positive answer is remembered for a short while, by the token's hash.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modelcache_api.errors import AccessDeniedError
from modelcache_api.names import AGENT_AUDIENCE
from modelcache_node.membership.api_server import ApiServer

_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
_EXTRA = "authentication.kubernetes.io"
_USER_PREFIX = "system:serviceaccount"
#: How long a good token is taken without asking again, seconds: reconnects come in bursts, and a
#: deleted pod's token dies within this. Arbitrary.
_CACHED_S = 30.0
#: Arbitrary; a node has some tens of Jobs at once.
_MAX_CACHED = 256
#: Reviews under way at once; more wait. Keeps a flood of bad tokens off the API server.
_MAX_CONCURRENT = 8


@dataclass(frozen=True, slots=True)
class Identity:
    """A pod, as the API server vouches for it."""

    namespace: str
    service_account: str
    pod_name: str
    pod_uid: str
    node_name: str


class TokenReviewer:
    """Reviews tokens for one node's agent; safe for concurrent use within one event loop."""

    def __init__(self, api: ApiServer, node_name: str, *, clock: Callable[[], float]) -> None:
        self._api = api
        self._node_name = node_name
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT)

    async def namespace_of(self, token: str) -> str:
        """As `review`."""
        return (await self.review(token)).namespace

    async def review(self, token: str) -> Identity:
        """Whose token it is.

        Raises:
            AccessDeniedError: not a valid token, not for agents, or not of a pod on this node.
            UnavailableError: the API server could not be asked; try again.
        """
        if not token:
            raise AccessDeniedError("no token")
        key = hashlib.sha256(token.encode()).digest()
        known = self._known.get(key)
        if known and self._clock() < known[0]:
            return known[1]
        async with self._slots:
            answer = await self._api.create(
                _PATH,
                {
                    "apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenReview",
                    "spec": {"token": token, "audiences": [AGENT_AUDIENCE]},
                },
            )
        identity = parse_review(answer.get("status", {}))
        if identity.node_name != self._node_name:
            raise AccessDeniedError(
                f"pod {identity.namespace}/{identity.pod_name} runs on node "
                f"{identity.node_name}, and this is the agent of {self._node_name}"
            )
        self._known[key] = (self._clock() + _CACHED_S, identity)
        self._known.move_to_end(key)
        while len(self._known) > _MAX_CACHED:
            self._known.popitem(last=False)
        return identity


def parse_review(status: dict[str, Any]) -> Identity:
    """The identity in a TokenReview's status.

    Raises:
        AccessDeniedError: it is not that of a pod's token for agents.
    """
    if not status.get("authenticated"):
        raise AccessDeniedError(f"token is not valid: {status.get('error', 'not authenticated')}")
    if AGENT_AUDIENCE not in status.get("audiences", ()):
        raise AccessDeniedError(f"token is not for audience {AGENT_AUDIENCE}")
    user = status.get("user", {})
    prefix, _, account = user.get("username", "").rpartition(":")
    prefix, _, namespace = prefix.rpartition(":")
    if prefix != _USER_PREFIX or not namespace or not account:
        raise AccessDeniedError("token is not of a service account")
    extra = {key: values[0] for key, values in (user.get("extra") or {}).items() if values}
    try:
        return Identity(
            namespace=namespace,
            service_account=account,
            pod_name=extra[f"{_EXTRA}/pod-name"],
            pod_uid=extra[f"{_EXTRA}/pod-uid"],
            node_name=extra[f"{_EXTRA}/node-name"],
        )
    except KeyError as e:
        raise AccessDeniedError(
            f"token says nothing of {e}: it must be bound to a pod, by Kubernetes 1.32 or later"
        ) from e
