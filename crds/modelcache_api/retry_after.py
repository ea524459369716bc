"""The pause that an HTTP server asks for. Pure."""

import datetime as dt
from email.utils import parsedate_to_datetime

#: The longest ``Retry-After`` that is obeyed: a date far away must not park a fetch for a day.
MAX_RETRY_AFTER_S = 300.0


def retry_after_s(text: str | None, now: dt.datetime) -> float | None:
    """Seconds that a ``Retry-After`` asks for: a number, or a date; None if it is neither.

    Args:
        text: The header's value.
        now: Wall-clock time, aware.
    """
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=dt.UTC)
    return min(max((at - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)
