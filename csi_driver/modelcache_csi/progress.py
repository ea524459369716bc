"""How far a model is, in words for the people who wait for it."""

from modelcache_api.messages import LeaseAnswer
from modelcache_api.reasons import Reason
from modelcache_api.units import GIB, KIB, MIB, TIB

_UNITS = ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))


def size_text(n_bytes: float) -> str:
    """``3.1 GiB``; ``850 MiB``: three digits say enough."""
    for unit, name in _UNITS:
        if n_bytes >= unit:
            return f"{n_bytes / unit:.{1 if n_bytes < 100 * unit else 0}f} {name}"
    return f"{n_bytes:.0f} B"


def duration_text(duration_s: float) -> str:
    if duration_s < 90:
        return f"{max(duration_s, 1):.0f} s"
    if duration_s < 90 * 60:
        return f"{duration_s / 60:.0f} min"
    return f"{duration_s / 3600:.1f} h"


def waiting_text(model_cache: str, answer: LeaseAnswer, problem: str | None) -> str:
    """One line: how far, how fast, how long, and why not, if something is in the way."""
    parts = [f"model {model_cache}: {_progress_text(answer)}"]
    if answer.reason is not Reason.FETCHING:
        parts.append(f"{answer.reason}: {answer.message}" if answer.message else answer.reason)
    if problem:
        parts.append(problem)
    return "; ".join(parts)


def quarter(answer: LeaseAnswer) -> int:
    """0 to 4: whole quarters present. Changes seldom enough to be told in an Event."""
    return 4 * answer.bytes_present // answer.bytes_total if answer.bytes_total else 0


def _progress_text(answer: LeaseAnswer) -> str:
    if not answer.bytes_total:
        return "waiting, nothing is known of its size yet"
    ratio = answer.bytes_present / answer.bytes_total
    text = f"{size_text(answer.bytes_present)} of {size_text(answer.bytes_total)} ({ratio:.0%})"
    if answer.bytes_per_s > 0:
        left_s = (answer.bytes_total - answer.bytes_present) / answer.bytes_per_s
        text += f", {size_text(answer.bytes_per_s)}/s, about {duration_text(left_s)} left"
    return text
