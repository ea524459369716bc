"""One helm and one default rendering for all chart tests."""

import pytest

from support.charts import Chart, Rendering
from support.tools import helm


@pytest.fixture(scope="session")
def chart() -> Chart:
    return Chart(helm())


@pytest.fixture(scope="session")
def rendered(chart: Chart) -> Rendering:
    """The chart with its default values."""
    return chart.render()
