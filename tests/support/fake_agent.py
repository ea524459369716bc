"""A small agent over a real unix socket: leases and status as `modelcache_api.messages` says.

Revisions are directories of a real data directory; they become complete when a test says so.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from modelcache_api.errors import ModelCacheError
from modelcache_api.manifest import File, Manifest
from modelcache_api.messages import (
    ErrorBody,
    LeaseAnswer,
    LeaseReport,
    LeaseRequest,
    LeaseState,
    Message,
    NodeReport,
)
from modelcache_api.names import tree_path
from modelcache_api.reasons import Reason
from support.http_servers import Runner


@dataclass
class FakeRevision:
    """What the agent knows of one revision. `bytes_present` counts until it is complete."""

    revision: str
    manifest: Manifest
    bytes_present: int = 0
    bytes_per_s: float = 0.0
    is_complete: bool = False
    reason: Reason = Reason.FETCHING


class FakeAgent:
    """Serves on `socket` while entered; entering again is a restart.

    Attributes:
        leases: By lease id; what the agent believes to be in use.
        wanted: Lease ids that asked for what is not there.
        requests: Every lease request, in order.
        reports: Every report of leases, in order.
        lazy_lacks: What the last report said of this node's kernel.
        error: Raised to whoever asks for a lease, when set.
        asked: Set whenever a lease is asked for; tests clear it.
        before_answer: Grants wait for it when set: the lease stands, its answer is on the way.
    """

    def __init__(self, socket: Path, data_dir: Path) -> None:
        self.leases: dict[str, str] = {}
        self.wanted: set[str] = set()
        self.requests: list[LeaseRequest] = []
        self.reports: list[dict[str, str]] = []
        self.lazy_lacks: tuple[str, ...] | None = None
        self.error: ModelCacheError | None = None
        self.asked = asyncio.Event()
        self.before_answer: asyncio.Event | None = None
        self._socket = socket
        self._data_dir = data_dir
        self._revisions: dict[str, FakeRevision] = {}
        self._proofs: list[tuple[str, str, str, str]] = []
        self._has_report = False
        self._changed = asyncio.Condition()
        self._runner: Runner | None = None

    async def __aenter__(self) -> "FakeAgent":
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.put("/v1/leases/{lease_id}", self._lease),
                web.delete("/v1/leases/{lease_id}", self._release),
                web.put("/v1/leases", self._report),
            ]
        )
        self._has_report = False
        self._runner = Runner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._socket)).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
        self._socket.unlink(missing_ok=True)

    # -- what tests do by hand

    def add(self, files: dict[str, bytes], *, is_complete: bool = True) -> FakeRevision:
        """A revision of those files; on disk at once when complete."""
        entries = [
            File(path, len(data), f"{i:064x}") for i, (path, data) in enumerate(files.items())
        ]
        manifest = Manifest.of(entries)
        found = FakeRevision(manifest.revision, manifest)
        self._revisions[found.revision] = found
        tree = self._data_dir / tree_path(found.revision)
        tree.mkdir(parents=True)
        (tree.parent / "manifest.json").write_bytes(manifest.canonical())
        for path, data in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(data)
        if is_complete:
            found.is_complete = True
            found.bytes_present = manifest.size_bytes
        return found

    def prove(self, revision: str, *, namespace: str, model_cache: str, uid: str = "") -> None:
        self._proofs.append((namespace, model_cache, uid, revision))

    def revision(self, revision: str) -> FakeRevision:
        return self._revisions[revision]

    def forget_leases(self) -> None:
        """As if restarted, without a moment of being away."""
        self.leases.clear()
        self._has_report = False

    async def complete(self, revision: str) -> None:
        """The last chunk lands."""
        self._revisions[revision].is_complete = True
        async with self._changed:
            self._changed.notify_all()

    async def reported(self, n_reports: int) -> None:
        """Returns once that many reports have come."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.reports) >= n_reports)

    # -- what the plugin asks

    async def _status(self, _: web.Request) -> web.Response:
        return _answer(
            NodeReport(
                version="0",
                boot_id="boot",
                store_id="store",
                capacity_bytes=0,
                used_bytes=0,
                reserved_bytes=0,
                leases_reported=self._has_report,
                revisions=[],
                proofs=[],
                wanted=[],
            )
        )

    async def _lease(self, request: web.Request) -> web.Response:
        wish = LeaseRequest.model_validate_json(await request.read())
        self.requests.append(wish)
        self.asked.set()
        if self.error:
            body = ErrorBody(reason=self.error.reason, message=str(self.error))
            return web.Response(status=409, text=body.wire(), content_type="application/json")
        try:
            async with asyncio.timeout(wish.wait_s), self._changed:
                await self._changed.wait_for(lambda: self._is_ready(wish))
        except TimeoutError:
            pass
        answer = self._answer_to(wish)
        lease_id = request.match_info["lease_id"]
        self.wanted.add(lease_id)
        if answer.state is not LeaseState.WAITING and answer.revision:
            self.leases[lease_id] = answer.revision
        if answer.state is LeaseState.READY:
            self.wanted.discard(lease_id)
        if self.before_answer:
            await self.before_answer.wait()
        return _answer(answer)

    async def _release(self, request: web.Request) -> web.Response:
        self.leases.pop(request.match_info["lease_id"], None)
        self.wanted.discard(request.match_info["lease_id"])
        return web.Response(status=204)

    async def _report(self, request: web.Request) -> web.Response:
        report = LeaseReport.model_validate_json(await request.read())
        self.leases = dict(report.leases)
        self.reports.append(dict(report.leases))
        self.lazy_lacks = report.lazy_lacks
        self._has_report = True
        async with self._changed:
            self._changed.notify_all()
        return web.Response(status=204)

    def _proved(self, wish: LeaseRequest) -> FakeRevision | None:
        for namespace, model_cache, uid, revision in reversed(self._proofs):
            if namespace != wish.namespace:
                continue
            if wish.revision:
                is_wanted = revision == wish.revision
            elif wish.model_cache_uid:
                is_wanted = uid == wish.model_cache_uid
            else:
                is_wanted = model_cache == wish.model_cache
            if is_wanted:
                return self._revisions[revision]
        return None

    def _is_ready(self, wish: LeaseRequest) -> bool:
        found = self._proved(wish)
        return found is not None and (found.is_complete or wish.lazy)

    def _answer_to(self, wish: LeaseRequest) -> LeaseAnswer:
        found = self._proved(wish)
        if found is None:
            return LeaseAnswer(
                state=LeaseState.WAITING, reason=Reason.NOT_PROVED, message="no Job was here yet"
            )
        if not found.is_complete:
            return LeaseAnswer(
                state=LeaseState.INCOMPLETE if wish.lazy else LeaseState.WAITING,
                reason=found.reason,
                message="",
                revision=found.revision,
                bytes_present=found.bytes_present,
                bytes_total=found.manifest.size_bytes,
                bytes_per_s=found.bytes_per_s,
            )
        return LeaseAnswer(
            state=LeaseState.READY,
            reason=Reason.READY,
            message="complete",
            revision=found.revision,
            tree=tree_path(found.revision),
        )


def _answer(message: Message) -> web.Response:
    return web.Response(text=message.wire(), content_type="application/json")
