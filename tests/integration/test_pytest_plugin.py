"""The plugin in runs of pytest of their own: found by its entry point, with each async plugin, and with none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

SERVICE = """
from eventbus import Context, Event, Group

class Planted(Event, type="plugin.planted"):
    number: int

class Grown(Event, type="plugin.grown"):
    number: int

garden = Group("garden")

@garden.on(Planted)
async def grow(event: Planted, ctx: Context) -> None:
    await ctx.publish(Grown(number=event.number), delay=86_400)

@garden.on(Grown)
async def admire(event: Grown, ctx: Context) -> None:
    return
"""
BODY = """
    await bus.publish(Planted(number=1))
    await bus.drain()
    assert bus.published(Grown) == bus.completed(Grown) == [Grown(number=1)]
"""
AUTO = f"""
from garden import Grown, Planted

async def test_the_groups_of_the_ini_file_run(bus) -> None:{BODY}

async def test_each_test_has_a_bus_of_its_own(bus) -> None:
    assert bus.published(Planted) == []
"""
STRICT = f"""
import pytest
from garden import Grown, Planted, garden

@pytest.mark.asyncio
async def test_with_asyncio(bus) -> None:
    bus.add(garden){BODY}

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_with_anyio(bus, anyio_backend) -> None:
    bus.add(garden){BODY}
"""
LOOP_SCOPE = "asyncio_default_fixture_loop_scope = function"
PLAIN = """
import sys

def test_nothing_is_imported_before_it_is_needed(pytestconfig) -> None:
    assert pytestconfig.pluginmanager.has_plugin("eventbus")
    assert not {"eventbus", "redis", "pydantic"} & set(sys.modules)

def test_the_fixture_needs_no_async_plugin(bus) -> None:
    assert bus.dead() == []
"""


@pytest.mark.parametrize(
    ("test", "settings", "passed"),
    [
        (AUTO, ["asyncio_mode = auto", LOOP_SCOPE, "eventbus_app = garden"], 2),
        (STRICT, ["asyncio_mode = strict", LOOP_SCOPE], 2),
        (PLAIN, ["addopts = -p no:asyncio -p no:anyio -p no:hypothesispytest -p no:valkey"], 2),
    ],
    ids=["auto", "strict and anyio", "plain"],
)
def test_runs(test: str, settings: list[str], passed: int, tmp_path: Path) -> None:
    (tmp_path / "garden.py").write_text(SERVICE)
    (tmp_path / "test_garden.py").write_text(test)
    (tmp_path / "pytest.ini").write_text("\n".join(["[pytest]", "filterwarnings = error", *settings]) + "\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{passed} passed" in run.stdout
