"""A namespace's proofs: made from what its grants really read, renewed, and asked at each mount.

Guarantees:
- a namespace may use a revision only by a proof that is not provisional and holds still;
- a proof is provisional while a digest of it is only claimed (see `possession`);
- a proof that stands is made younger by a new full proof or a renewal, never by a claim;
- one that another agent passes on is as old here as there.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence

from modelcache_api.errors import NotProvedError
from modelcache_api.layouts import HubLayout
from modelcache_api.listing import ListedObject
from modelcache_api.manifest import Manifest
from modelcache_api.messages import (
    Hello,
    LeaseAnswer,
    LeaseRequest,
)
from modelcache_api.peer_proofs import PassedProof
from modelcache_node.caching.access import Freshness, check_renewable, proof_for
from modelcache_node.caching.possession import check_possession
from modelcache_node.caching.resolving import Resolution, resolve
from modelcache_node.store.index import Proof
from modelcache_node.store.store import Store
from modelcache_node.transfer.movers import Movers


class Proving:
    """See the module. Used from one event loop; its state is the store's index."""

    def __init__(
        self, store: Store, movers: Movers, *, now: Callable[[], float], max_age_s: float | None
    ) -> None:
        """`now` is the wall clock in seconds; `max_age_s` None: proofs hold for ever."""
        self._store = store
        self._movers = movers
        self._now = now
        self._freshness = Freshness(max_age_s)

    async def note(
        self, hello: Hello, resolution: Resolution, objects: Sequence[ListedObject]
    ) -> None:
        """Record what a session's source was found to be, and prove what can be proved now.

        Raises what `confirm` raises.
        """
        if not resolution.by_claim or self._store.is_complete(resolution.manifest.revision):
            await self.confirm(hello, resolution, objects)
        else:
            await self._put(hello, resolution, is_provisional=True)

    async def confirm(
        self, hello: Hello, resolution: Resolution, objects: Sequence[ListedObject]
    ) -> None:
        """Let the session's namespace use a revision: its grants read the very bytes.

        Raises what `check_possession` raises.
        """
        blob_of = {file.path: file.blob for file in resolution.manifest.files}
        await check_possession(
            resolution,
            {blob_of[one.path]: (one.path, one.grant) for one in objects},
            self._movers,
            data_path=self._store.blobs.data_path,
            below=secrets.randbelow,
        )
        await self._put(hello, resolution, is_provisional=False)

    async def renew(self, hello: Hello, objects: Sequence[ListedObject]) -> str:
        """Prove a namespace's access to the revision that `hello` renews; fetch nothing.

        Raises what `resolve` and `confirm` raise, and
            SourceChangedError: the source is another now, and says nothing of that revision.
            NotProvedError: this node has not the bytes to compare with.
        """
        revision = hello.renews or ""
        index, of_it = self._store.index, self._store.revisions.find(revision)
        resolution = await resolve(
            objects,
            self._movers,
            namespace=hello.namespace,
            ca_pem=hello.ca_pem,
            layout=_same_layout(of_it, hello.layout),
            mirrored=hello.mirrored,
        )
        known = [
            proof
            for proof in index.proofs
            if (proof.namespace, proof.revision) == (hello.namespace, revision)
        ]
        check_renewable(revision, of_it, resolution.root, resolution.manifest, known)
        if resolution.manifest.revision == revision:
            if resolution.by_claim and not self._store.is_complete(revision):
                raise NotProvedError(f"{revision} is not on this node to compare with")
            await self.confirm(hello, resolution, objects)
        await self.take_renewals([(hello.namespace, revision, self._now())])
        return revision

    async def take_renewals(self, renewals: Sequence[tuple[str, str, float]]) -> None:
        """Make proofs younger: namespace, revision, and when; none counts from the future."""
        now = self._now()
        bounded = [(namespace, revision, min(at, now)) for namespace, revision, at in renewals]
        if bounded:
            await asyncio.to_thread(self._store.index.renew_proofs, bounded)

    def proved(self) -> set[str]:
        """Revisions that some namespace may use, by a proof of this node that holds."""
        now = self._now()
        return {
            proof.revision
            for proof in self._store.index.proofs
            if not proof.is_provisional and self._freshness.holds(proof, now)
        }

    async def take_passed(self, revision: str, passed: Iterable[PassedProof]) -> None:
        """Take another agent's proofs of a revision, where there is none as young here.

        None counts from the future, and none that does not hold any more is taken.
        """
        now = self._now()
        known = {
            _whose(proof): proof.checked_at
            for proof in self._store.index.proofs
            if proof.revision == revision and not proof.is_provisional
        }
        for one in passed:
            proof = Proof(
                one.namespace,
                one.model_cache,
                one.model_cache_uid,
                one.request,
                revision,
                min(one.at, now),
                one.root,
                renewed_at=min(one.renewed_at, now),
            )
            if (
                self._freshness.holds(proof, now)
                and known.get(_whose(proof), -1.0) < proof.checked_at
            ):
                await asyncio.to_thread(self._store.index.put_proof, proof)

    def proof_of(self, wish: LeaseRequest) -> Proof | None:
        """The proof that speaks of a volume's wish, whether or not it lets it be used."""
        return proof_for(wish, self._store.index.proofs)

    def refusal(self, proof: Proof) -> LeaseAnswer | None:
        """Why a proof lets nothing be used now, where that has to be said."""
        now = self._now()
        return None if self._freshness.holds(proof, now) else self._freshness.refusal(proof, now)

    async def _put(self, hello: Hello, resolution: Resolution, *, is_provisional: bool) -> None:
        proof = Proof(
            hello.namespace,
            hello.model_cache,
            hello.model_cache_uid,
            hello.request,
            resolution.manifest.revision,
            self._now(),
            resolution.root,
            is_provisional=int(is_provisional),
        )
        await asyncio.to_thread(self._store.index.put_proof, proof)


def _whose(proof: Proof) -> tuple[str, str, str, str]:
    return proof.namespace, proof.model_cache, proof.model_cache_uid, proof.request


def _same_layout(of_it: Manifest | None, now: HubLayout | None) -> HubLayout | None:
    """The layout of the revision that is renewed, where its source still is at that commit.

    A renewal asks for no layout: it is the source that is read again, whatever its tree looks like.
    """
    if of_it is None or of_it.layout is None:
        return now
    return of_it.layout
