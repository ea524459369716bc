"""Who may use which revision, and until when: proofs against wishes. Pure.

A proof says that a namespace's grants could read every object of a revision. It holds for a while
and is then to be renewed, for access may have been withdrawn since. It is renewed

- by a new proof of the same revision, or,
- where the source has changed since, by proof that every object is still read where it was read
  for the revision: the same root, and a file of every path, whatever its content is now.

Only what this node's agent read counts, never what a Job says of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from modelcache_api.errors import SourceChangedError
from modelcache_api.manifest import Manifest
from modelcache_api.messages import LeaseAnswer, LeaseRequest, LeaseState
from modelcache_api.reasons import Reason
from modelcache_node.store.index import Proof

#: A proof from further in the future than this is of a clock that was wrong, and does not count.
MAX_CLOCK_SKEW_S = 300.0


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long a proof holds. `max_age_s` None: for ever, on a node without tenants."""

    max_age_s: float | None

    def holds(self, proof: Proof, now: float) -> bool:
        """`now` in seconds of the Unix epoch."""
        age_s = now - proof.checked_at
        return self.max_age_s is None or -MAX_CLOCK_SKEW_S <= age_s <= self.max_age_s

    def refusal(self, proof: Proof, now: float) -> LeaseAnswer:
        """What a volume is told whose namespace's proof does not hold any more."""
        age_s, max_age_s = now - proof.checked_at, self.max_age_s or 0.0
        return LeaseAnswer(
            state=LeaseState.WAITING,
            reason=Reason.PROOF_EXPIRED,
            message=(
                f"this namespace's access to the source was last proved {age_s:.0f} s ago, and"
                f" counts for {max_age_s:.0f} s; a prefetch Job must prove it again"
            ),
            revision=proof.revision,
        )


def proof_for(wish: LeaseRequest, proofs: Sequence[Proof]) -> Proof | None:
    """The newest proof of the wish's namespace that it may mean; `proofs` are the oldest first.

    A provisional one only where there is no other: it tells progress, and lets nothing be used.
    """
    found: Proof | None = None
    for proof in reversed(proofs):
        if proof.namespace != wish.namespace:
            continue
        if wish.revision:
            is_meant = proof.revision == wish.revision
        elif wish.model_cache_uid:
            is_meant = proof.model_cache_uid == wish.model_cache_uid
        else:
            is_meant = proof.model_cache == wish.model_cache
        if is_meant and (found is None or found.is_provisional):
            found = proof
    return found


def check_renewable(
    revision: str, of_it: Manifest | None, root: str, now_there: Manifest, known: Sequence[Proof]
) -> None:
    """A namespace reads `now_there` at `root`; that renews `revision`, of which it has `known`.

    Raises:
        SourceChangedError: it does not.
    """
    if now_there.revision == revision:
        return
    if of_it is None or not root or all(proof.root != root for proof in known):
        raise SourceChangedError(
            f"the source is {now_there.revision} now, and this node cannot tell that"
            f" {revision} was read there"
        )
    lost = {file.path for file in of_it.files} - {file.path for file in now_there.files}
    if lost:
        raise SourceChangedError(
            f"the source has no {min(lost)!r} any more: access to {revision} cannot be proved"
        )
