"""What every test relies on."""

import asyncio

from hypothesis import HealthCheck, settings

#: Hypothesis' own deadlines are assertions on time, which a busy machine breaks.
settings.register_profile("modelcache", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("modelcache")


def pytest_configure() -> None:
    """Let nobody make an event loop by asking for the current one.

    looptime asks before every test; for the first ones, if they are not async, Python would make
    a loop that is never closed, and a later, innocent test would fail of its ResourceWarning.
    """
    asyncio.set_event_loop(None)
