"""What this node holds of a revision, in versions: a neighbour asks for what is new to it.

Mutable state: the set of slots held, under which checksums, and a log of changes. A version is a
place in that log. When slots were dropped so often that the log is twice the revision, it begins
anew under another instance, and neighbours ask for everything again.
"""

from array import array
from collections.abc import Iterable

from modelcache_api.have_map import MAX_CHANGES, HaveMap
from modelcache_node.swarm.bitsets import each, of_slots

#: Maps kept for neighbours that ask from the same version. Arbitrary: neighbours ask in turn.
_CACHED_MAPS = 8


class Holdings:
    """See the module's text."""

    def __init__(self, n_slots: int, instance: int) -> None:
        """`instance` is random, other than that of any earlier agent on this node."""
        self.n_slots = n_slots
        self.instance = instance
        self.bits = 0
        self._held = bytearray(n_slots)
        self._log = array("I")
        self._crc32c = array("I", bytes(4 * n_slots))
        self._crc64nvme = array("Q", bytes(8 * n_slots))
        self._has_crc64 = False
        self._vouched = bytearray(n_slots)
        self._unshared: set[int] = set()
        self._frozen: set[int] = set()
        self._maps: dict[tuple[int, int], HaveMap] = {}

    @property
    def version(self) -> int:
        return len(self._log)

    def has(self, slot: int) -> bool:
        return bool(self._held[slot])

    def checksums(self, slot: int) -> tuple[int, int]:
        """(CRC32C, CRC64/NVME or 0) under which a held slot is held."""
        return self._crc32c[slot], self._crc64nvme[slot]

    def add(
        self,
        slot: int,
        crc32c: int,
        crc64nvme: int = 0,
        *,
        vouched: bool,
        is_shared: bool = True,
    ) -> None:
        """The slot is on disk and checked. Idempotent.

        Args:
            slot: Which.
            crc32c: Of its bytes.
            crc64nvme: The same; 0 where nobody computed it.
            vouched: This node read it from the origin, or compared its whole blob with the origin's
                checksum.
            is_shared: Neighbours may have it now; else after `vouch`.
        """
        if self.has(slot):
            return
        self.bits |= 1 << slot
        self._held[slot] = True
        self._crc32c[slot] = crc32c
        self._crc64nvme[slot] = crc64nvme
        self._has_crc64 = self._has_crc64 or bool(crc64nvme)
        self._vouched[slot] = vouched
        if is_shared:
            self._changed(slot)
        else:
            self._unshared.add(slot)

    def vouch(self, slots: Iterable[int]) -> None:
        """The whole blob of these agrees with the origin's checksum. Neighbours that know the
        slots already are not told again; new ones are told so.
        """
        for slot in slots:
            self._vouched[slot] = True
            if slot in self._unshared:
                self._unshared.discard(slot)
                self._changed(slot)
        self._maps.clear()

    def freeze(self, slots: Iterable[int]) -> None:
        """The blob of these, all held, is being compared with the origin's checksum."""
        self._frozen.update(slots)

    def thaw(self, slots: Iterable[int]) -> None:
        """That is over."""
        self._frozen.difference_update(slots)

    def may_drop(self, slot: int) -> bool:
        """Whether it is held, and its file is not being read."""
        return self.has(slot) and slot not in self._frozen

    def drop(self, slot: int) -> None:
        """The slot is to be fetched again. Idempotent."""
        if self.has(slot):
            self.bits ^= 1 << slot
            self._held[slot] = False
            if slot in self._unshared:
                self._unshared.discard(slot)
            else:
                self._changed(slot)

    def map_since(
        self,
        instance: int,
        since: int,
        *,
        can_fetch: bool,
        fetching: "array[int]",
        uploads_queued: int,
    ) -> HaveMap:
        """What a neighbour does not know that has `since` of `instance`; at most MAX_CHANGES."""
        if instance != self.instance or since > self.version:
            since = 0
        changes = self._changes(since)
        return HaveMap(
            instance=self.instance,
            since=since,
            version=changes.version,
            n_slots=self.n_slots,
            present=changes.present,
            crc32c=changes.crc32c,
            crc64nvme=changes.crc64nvme,
            vouched=changes.vouched,
            gone=changes.gone,
            fetching=fetching,
            can_fetch=can_fetch,
            uploads_queued=uploads_queued,
        )

    def _changes(self, since: int) -> HaveMap:
        until = min(self.version, since + MAX_CHANGES)
        found = self._maps.get((since, until))
        if found is None:
            if len(self._maps) >= _CACHED_MAPS:
                del self._maps[next(iter(self._maps))]
            found = self._maps[since, until] = self._collect(since, until)
        return found

    def _collect(self, since: int, until: int) -> HaveMap:
        changed = self._log[since:until]
        if len(set(changed)) != len(changed):
            changed = array("I", dict.fromkeys(changed))
        held = self._held
        present = array("I", (slot for slot in changed if held[slot]))
        gone = array("I", (slot for slot in changed if not held[slot]))
        vouched = (number for number, slot in enumerate(present) if self._vouched[slot])
        return HaveMap(
            instance=self.instance,
            since=since,
            version=until,
            n_slots=self.n_slots,
            present=present,
            crc32c=array("I", map(self._crc32c.__getitem__, present)),
            crc64nvme=array("Q", map(self._crc64nvme.__getitem__, present))
            if self._has_crc64
            else array("Q"),
            vouched=of_slots(vouched, len(present)),
            gone=gone,
        )

    def _changed(self, slot: int) -> None:
        self._log.append(slot)
        if len(self._log) > 2 * self.n_slots + 1024:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self.instance = (self.instance + 1) % (1 << 64)
        self._log = array("I", (slot for slot in each(self.bits) if slot not in self._unshared))
        self._maps.clear()
