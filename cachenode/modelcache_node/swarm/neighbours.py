"""What this node knows of one neighbour: its chunks, how it answers, and whether to leave it be."""

from dataclasses import dataclass

#: Faults after which a neighbour is avoided.
MAX_STRIKES = 3
#: How long it is avoided then; doubled each time, up to the second. Arbitrary: a node with bad
#: memory is to be noticed by people meanwhile.
AVOID_S, MAX_AVOID_S = 60.0, 3600.0
#: A neighbour that does not answer is left alone so long, doubled each time up to the second.
ABSENCE_S, MAX_ABSENCE_S = 0.25, 15.0
#: A slot that a neighbour says it reads from the origin for so long, or twice as long, counts no
#: more: others may ask for it then. Arbitrary: far above what a chunk takes.
STUCK_S = 30.0
#: A neighbour gets this many mean chunk times for a chunk, but at least the second, in seconds.
TIMEOUT_CHUNK_TIMES, MIN_TIMEOUT_S = 32.0, 5.0
#: The same while nothing was measured yet: eight chunks of 16 MiB at 36 Mbit/s. One that sends
#: nothing at all is given up much earlier, by the movers.
FIRST_TIMEOUT_S = 30.0
#: Weight of the newest chunk in the moving average of a neighbour's times. Arbitrary: about the
#: last five chunks count.
EWMA_WEIGHT = 0.2


@dataclass(slots=True, eq=False)
class Neighbour:
    """One neighbour. `bits` are the slots it offers under the checksum that we accept."""

    name: str
    #: Above 1 where bytes from it cost more than others': another zone.
    weight: float = 1.0
    instance: int = 0
    version: int = 0
    bits: int = 0
    #: Slots that it reads from the origin now.
    fetching: int = 0
    #: What it read when that was looked at last, when that was, and what it had then read for long.
    read_before: int = 0
    read_before_at: float = 0.0
    stuck: int = 0
    can_fetch: bool = False
    uploads_queued: int = 0
    n_in_flight: int = 0
    #: Mean time of a chunk from it, seconds; 0 before the first.
    ewma_s: float = 0.0
    busy_until: float = 0.0
    #: It was told that this node reads the origin.
    knows_us: bool = False
    #: It has answered, or failed to, since it became a neighbour.
    is_heard: bool = False
    is_absent: bool = True
    absent_until: float = 0.0
    n_absences: int = 0
    strikes: int = 0
    avoided_until: float = 0.0
    n_avoided: int = 0

    def is_usable(self, now: float) -> bool:
        """Whether a chunk may be asked of it now."""
        return not self.is_absent and now >= self.busy_until and now >= self.avoided_until

    def reads(self, slots: int, now: float) -> None:
        """It says that it reads these from the origin."""
        if now - self.read_before_at >= STUCK_S:
            self.stuck = self.read_before & slots
            self.read_before, self.read_before_at = slots, now
        self.fetching = slots & ~self.stuck

    def timeout_s(self, chunk_s: float) -> float:
        """For a chunk asked of it now; `chunk_s`: the mean over all neighbours, 0 if unknown."""
        expected_s = max(self.ewma_s, chunk_s)
        if not expected_s:
            return FIRST_TIMEOUT_S
        return max(MIN_TIMEOUT_S, TIMEOUT_CHUNK_TIMES * expected_s)

    def took(self, seconds: float) -> None:
        """A chunk came from it."""
        self.ewma_s = moving_mean(self.ewma_s, seconds)

    def strike(self, now: float) -> None:
        """It broke the rules: wrong bytes, a map that lies, an answer that is none."""
        self.strikes += 1
        if self.strikes >= MAX_STRIKES:
            self.avoided_until = now + min(AVOID_S * 2**self.n_avoided, MAX_AVOID_S)
            self.n_avoided = min(self.n_avoided + 1, 16)
            self.strikes = MAX_STRIKES - 1  # after its time, one more is enough

    def answered(self) -> None:
        """It answered when asked for its map."""
        self.is_heard, self.is_absent, self.n_absences = True, False, 0

    def failed(self, now: float) -> None:
        """It does not answer."""
        self.is_heard, self.is_absent = True, True
        self.absent_until = now + min(ABSENCE_S * 2**self.n_absences, MAX_ABSENCE_S)
        self.n_absences = min(self.n_absences + 1, 16)


def moving_mean(mean: float, newest: float) -> float:
    """The mean with one more, newest, measurement; 0 is that of none."""
    return mean + EWMA_WEIGHT * (newest - mean) if mean else newest
