"""What every test relies on."""

import asyncio


def pytest_configure() -> None:
    """Let nobody make an event loop by asking for the current one.

    looptime asks before every test; for the first ones, if they are not async, Python would make
    a loop that is never closed, and a later, innocent test would fail of its ResourceWarning.
    """
    asyncio.set_event_loop(None)
