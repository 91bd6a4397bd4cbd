"""`eventbus demo`, as a newcomer runs it: nothing configured, nothing running."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from eventbus.embedded import EmbeddedRedis
from gateway.demo.board import STEPS
from tests.waiting import PATIENCE

COMMAND = [sys.executable, "-m", "eventbus.cli", "demo"]


def environment(data_dir: Path) -> dict[str, str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("EVENTBUS_", "REDIS_", "DATABASE_"))
    }
    return {**clean, "EVENTBUS_DATA_DIR": str(data_dir)}


def test_once_sees_every_step_and_ends_well(tmp_path: Path) -> None:
    run = subprocess.run(
        [*COMMAND, "--once"], env=environment(tmp_path), capture_output=True, text=True, timeout=90, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    for step in STEPS:
        assert f" {step} " in run.stdout, step
    assert f"all {len(STEPS)} steps seen" in run.stdout
    assert run.stderr == ""


def test_it_stays_up_until_a_signal_and_shows_no_password(tmp_path: Path) -> None:
    with subprocess.Popen(COMMAND, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        shown = []
        for line in demo.stdout:
            shown.append(line)
            if "eventbus dead list" in line:
                break
        exports = (tmp_path / "env").read_text()
        assert (tmp_path / "env").stat().st_mode & 0o077 == 0
        listed = subprocess.run(
            ["sh", "-c", f'. {tmp_path}/env; exec "$0" -m eventbus.cli dead list', sys.executable],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(PATIENCE) == 0
    assert (listed.returncode, listed.stdout.strip()) == (0, "no dead letters")
    password = exports.partition("redis://:")[2].partition("@")[0]
    assert password
    assert password not in "".join(shown)


def test_a_data_directory_in_use_is_refused_on_one_screen(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis"):
        run = subprocess.run(
            [*COMMAND, "--once"],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert run.returncode == 1
    assert "in use" in run.stderr
    assert len(run.stderr.splitlines()) <= 20
