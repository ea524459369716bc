"""Is a connection still worth waiting for? Pure: bytes and times in, a verdict out."""

from modelcache_node.transfer.limits import MoverLimits


class Watch:
    """Looks at one range's progress now and then. Times are monotonic seconds."""

    def __init__(self, limits: MoverLimits, received_bytes: int, now: float) -> None:
        self._limits = limits
        self._bytes = received_bytes
        self._moved_at = now
        self._window_bytes = received_bytes
        self._window_at = now

    def verdict(self, received_bytes: int, now: float) -> str | None:
        """Why to give the connection up, for people; None while it does well.

        Args:
            received_bytes: Body bytes so far; never less than before.
            now: Time of this look.
        """
        limits = self._limits
        if received_bytes > self._bytes:
            self._bytes = received_bytes
            self._moved_at = now
        elif now - self._moved_at >= limits.inactivity_timeout_s:
            return f"stalled: no byte for {limits.inactivity_timeout_s:.0f} s"
        elapsed_s = now - self._window_at
        if elapsed_s >= limits.speed_window_s:
            speed = (received_bytes - self._window_bytes) / elapsed_s
            if speed < limits.min_bytes_per_s:
                return f"too slow: {speed:.0f} bytes/s over {elapsed_s:.0f} s"
            self._window_bytes = received_bytes
            self._window_at = now
        return None
