"""Progress of a fetch on a terminal: one line, redrawn; nothing where there is no terminal."""

import sys
from collections import deque
from collections.abc import Callable
from typing import TextIO

#: Span over which the shown rate is an average, seconds. Arbitrary.
_RATE_WINDOW_S = 5.0
_BAR_CELLS = 24


def human_bytes(n_bytes: float) -> str:
    """``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(n_bytes) < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"


def progress_line(present: int, total: int, bytes_per_s: float, note: str | None) -> str:
    """One line of text; pure."""
    if not total:
        return note or "listing…"
    cells = _BAR_CELLS * present // total
    bar = "█" * cells + "·" * (_BAR_CELLS - cells)
    text = f"{bar} {100 * present // total:3d} %  {human_bytes(present)} of {human_bytes(total)}"
    if bytes_per_s:
        left_s = (total - present) / bytes_per_s
        text += f"  {human_bytes(bytes_per_s)}/s  {left_s:.0f} s left"
    return f"{text}  {note}" if note else text


class ProgressBar:
    """Draws on `out` when it is a terminal; remembers positions to show a rate."""

    def __init__(self, clock: Callable[[], float], out: TextIO | None = None) -> None:
        self._clock = clock
        self._out = out or sys.stderr
        self._is_terminal = self._out.isatty()
        self._positions: deque[tuple[float, int]] = deque(maxlen=64)

    def show(self, present: int, total: int, note: str | None = None) -> None:
        if not self._is_terminal:
            return
        now = self._clock()
        self._positions.append((now, present))
        while now - self._positions[0][0] > _RATE_WINDOW_S:
            self._positions.popleft()
        since, first = self._positions[0]
        rate = (present - first) / (now - since) if now > since else 0.0
        self._out.write("\r\x1b[K" + progress_line(present, total, rate, note))
        self._out.flush()

    def end(self) -> None:
        if self._is_terminal:
            self._out.write("\r\x1b[K")
            self._out.flush()
