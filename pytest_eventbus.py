"""The pytest plugin of eventbus: the fixture `bus`.

A module of its own, outside of the package: pytest imports it at the start of every run, and importing eventbus takes
half a second, which is for those to pay who use the fixture.
"""

import pytest

APP = "eventbus_app"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        APP,
        "what the fixture `bus` runs the groups of: module or module:attribute, one or more",
        type="args",
        default=[],
    )


@pytest.fixture
def bus(pytestconfig: pytest.Config) -> object:
    """An eventbus.testing.MemoryBus for this test alone: `await bus.publish(…)`, `await bus.drain()`,
    `bus.published(EventType)`. Opened and closed by nobody: it holds nothing, so any async plugin will do.

    It runs the groups of the ini option `eventbus_app`, and those that the test gives it: `bus.add(group)`."""
    from eventbus.operating.apps import load_app  # noqa: PLC0415
    from eventbus.testing import MemoryBus  # noqa: PLC0415

    return MemoryBus([group for path in pytestconfig.getini(APP) for group in load_app(path).groups])
