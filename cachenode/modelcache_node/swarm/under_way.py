"""The asks that have no answer yet. A slot is asked for once, at the end of a revision twice."""

from collections.abc import Iterator

from modelcache_node.swarm.asks import Ask


class UnderWay:
    """See the module's text."""

    def __init__(self) -> None:
        self._by_slot: dict[int, list[Ask]] = {}
        self._landed: dict[int, Ask] = {}
        self._n_asked = 0
        self.n_origin = 0
        self.n_peer = 0

    def __bool__(self) -> bool:
        return bool(self._by_slot)

    @property
    def n_slots(self) -> int:
        return len(self._by_slot)

    def lone(self, asked_before: float, origin_asked_before: float) -> Iterator[Ask]:
        """Asks that wait for their bytes, for a slot that nobody else is asked for."""
        for slot, asks in self._by_slot.items():
            if slot in self._landed or len(asks) != 1:
                continue
            before = origin_asked_before if asks[0].peer is None else asked_before
            if asks[0].asked_at <= before:
                yield asks[0]

    def landed(self, ask: Ask) -> None:
        """Its bytes came, and are not accepted or refused yet."""
        if ask in self._by_slot.get(ask.slot, []):
            self._landed[ask.slot] = ask

    def has(self, slot: int) -> bool:
        return slot in self._by_slot

    def from_origin(self) -> list[int]:
        """Slots that are read from the origin now."""
        return [ask.slot for asks in self._by_slot.values() for ask in asks if ask.peer is None]

    def begin(self, slot: int, peer: str | None, now: float, timeout_s: float | None) -> Ask:
        self._n_asked += 1
        ask = Ask(self._n_asked, slot, peer, now, timeout_s)
        self._by_slot.setdefault(slot, []).append(ask)
        if peer is None:
            self.n_origin += 1
        else:
            self.n_peer += 1
        return ask

    def end(self, ask: Ask) -> tuple[Ask, ...]:
        """It was answered; returns other asks for its slot. Idempotent."""
        asks = self._by_slot.get(ask.slot, [])
        if self._landed.get(ask.slot) == ask:
            del self._landed[ask.slot]
        if ask in asks:
            asks.remove(ask)
            if ask.peer is None:
                self.n_origin -= 1
            else:
                self.n_peer -= 1
            if not asks:
                del self._by_slot[ask.slot]
        return tuple(asks)
