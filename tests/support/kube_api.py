"""A small Kubernetes API server over real sockets: objects, watches, status, conflicts.

It knows no kinds: a collection is what is written to it. What it keeps true is what clients rely
on: resource versions that grow, 409 for a taken name or an old version, 410 for a version that
was compacted away, status apart from the rest, generation that grows with the spec.
"""

import asyncio
import copy
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from support.http_servers import Runner

Object = dict[str, Any]

_PATH = re.compile(
    r"(?P<api>/api/v1|/apis/[^/]+/[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>status))?"
)


@dataclass
class _Event:
    version: int
    type: str
    object: Object


@dataclass
class _Collection:
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    events: list[_Event] = field(default_factory=list)


class FakeKubeApi:
    """Serves until closed; `url` is set once started.

    Attributes:
        requests: How often each (method, plural) was asked.
        is_down: Answer every request with 503 while set.
        answers: Called for a POST to a plural named here, instead of storing.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.tokens: list[str] = []
        self.is_down = False
        self.answers: dict[str, Any] = {}
        self.url = ""
        self._version = 0
        self._compacted = 0
        self._collections: dict[tuple[str, str], _Collection] = {}
        self._changed = asyncio.Condition()
        self._watches: set[asyncio.Task[Any]] = set()
        self._runner: Runner | None = None

    async def __aenter__(self) -> "FakeKubeApi":
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = Runner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.break_watches()
        if self._runner:
            await self._runner.cleanup()

    # -- what tests do by hand

    async def put(self, path: str, body: Object) -> Object:
        """Create or replace, status and all, as if by somebody else."""
        match = self._match(path)
        meta = body.setdefault("metadata", {})
        if match["namespace"]:
            meta.setdefault("namespace", match["namespace"])
        return await self._store(match, copy.deepcopy(body))

    def peek(self, path: str) -> Object | None:
        match = self._match(path)
        found = self._collection(match).objects.get((match["namespace"] or "", match["name"]))
        return copy.deepcopy(found) if found else None

    async def remove(self, path: str) -> None:
        match = self._match(path)
        await self._remove(match)

    def compact(self) -> None:
        """Forget all history: watches from earlier versions get 410."""
        self._compacted = self._version
        for collection in self._collections.values():
            collection.events.clear()

    async def break_watches(self) -> None:
        for task in self._watches:
            task.cancel()

    # -- what clients do

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        match = _PATH.fullmatch(request.path)
        if match is None:
            return _failure(404, "the server could not find the requested resource")
        self.requests[request.method, match["plural"]] += 1
        self.tokens.append(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if self.is_down:
            return _failure(503, "the server is currently unable to handle the request")
        if request.method == "GET":
            if request.query.get("watch") in {"true", "True"}:
                return await self._watch(request, match)
            return self._get(request, match)
        return await self._write(request, match)

    async def _write(self, request: web.Request, match: re.Match[str]) -> web.StreamResponse:
        collection = self._collection(match)
        key = (match["namespace"] or "", match["name"])
        if request.method == "POST":
            body = await request.json()
            if match["plural"] in self.answers:
                return web.json_response(self.answers[match["plural"]](body), status=201)
            key = (match["namespace"] or "", body["metadata"]["name"])
            if key in collection.objects:
                return _failure(409, f"{match['plural']} {key[1]!r} already exists")
            if match["namespace"]:
                body["metadata"]["namespace"] = match["namespace"]
            body.pop("status", None)
            return web.json_response(await self._store(match, body), status=201)
        if key not in collection.objects:
            return _failure(404, f"{match['plural']} {key[1]!r} not found")
        if request.method == "DELETE":
            return web.json_response(await self._remove(match))
        return await self._patch(request, match, collection.objects[key])

    async def _patch(
        self, request: web.Request, match: re.Match[str], old: Object
    ) -> web.StreamResponse:
        body = await request.json()
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in {None, old["metadata"]["resourceVersion"]}:
            return _failure(409, "the object has been modified")
        new = copy.deepcopy(old)
        if match["sub"] == "status":
            _merge(new, {"status": body.get("status", {})})
        else:
            _merge(new, {key: value for key, value in body.items() if key != "status"})
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if new == old:
            return web.json_response(old)
        return web.json_response(await self._store(match, new))

    async def _store(self, match: re.Match[str], body: Object) -> Object:
        collection = self._collection(match)
        meta = body["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        old = collection.objects.get(key)
        self._version += 1
        meta["resourceVersion"] = str(self._version)
        meta.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{self._version}")
        generation = old["metadata"]["generation"] if old else 0
        is_new_spec = old is None or old.get("spec") != body.get("spec")
        meta["generation"] = generation + is_new_spec
        collection.objects[key] = body
        await self._tell(collection, "MODIFIED" if old else "ADDED", body)
        return body

    async def _remove(self, match: re.Match[str]) -> Object:
        collection = self._collection(match)
        body = collection.objects.pop((match["namespace"] or "", match["name"]))
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        await self._tell(collection, "DELETED", body)
        return body

    async def _tell(self, collection: _Collection, kind: str, body: Object) -> None:
        collection.events.append(_Event(self._version, kind, copy.deepcopy(body)))
        async with self._changed:
            self._changed.notify_all()

    def _get(self, request: web.Request, match: re.Match[str]) -> web.StreamResponse:
        collection = self._collection(match)
        if match["name"]:
            found = collection.objects.get((match["namespace"] or "", match["name"]))
            if found is None:
                return _failure(404, f"{match['plural']} {match['name']!r} not found")
            return web.json_response(found)
        items = [body for body in collection.objects.values() if _selects(request, match, body)]
        return web.json_response(
            {"kind": "List", "metadata": {"resourceVersion": str(self._version)}, "items": items}
        )

    async def _watch(self, request: web.Request, match: re.Match[str]) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        seen = int(request.query.get("resourceVersion") or self._version)
        if seen < self._compacted:
            await _send(answer, {"type": "ERROR", "object": {"kind": "Status", "code": 410}})
            return answer
        task = asyncio.current_task()
        assert task
        self._watches.add(task)
        collection = self._collection(match)
        try:
            while True:
                for event in [event for event in collection.events if event.version > seen]:
                    seen = event.version
                    if _selects(request, match, event.object):
                        await _send(answer, {"type": event.type, "object": event.object})
                async with self._changed:
                    await self._changed.wait()
        finally:
            self._watches.discard(task)

    def _collection(self, match: re.Match[str]) -> _Collection:
        return self._collections.setdefault((match["api"], match["plural"]), _Collection())

    @staticmethod
    def _match(path: str) -> re.Match[str]:
        match = _PATH.fullmatch(path)
        assert match, path
        return match


def _selects(request: web.Request, match: re.Match[str], body: Object) -> bool:
    meta = body["metadata"]
    if match["namespace"] and meta.get("namespace") != match["namespace"]:
        return False
    for selector, found in (
        ("fieldSelector", {"metadata.name": meta["name"]}),
        ("labelSelector", meta.get("labels", {})),
    ):
        for term in filter(None, request.query.get(selector, "").split(",")):
            key, equals, value = term.partition("=")
            if found.get(key) != value if equals else key not in found:
                return False
    return True


def _merge(target: Object, patch: Object) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


async def _send(answer: web.StreamResponse, event: Object) -> None:
    await answer.write(json.dumps(event).encode() + b"\n")


def _failure(status: int, message: str) -> web.Response:
    return web.json_response(
        {"kind": "Status", "status": "Failure", "message": message, "code": status}, status=status
    )
