"""compose.yaml and what is laid over it, merged as Docker Compose does it; its servers run here without containers."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml  # type: ignore[import-untyped]

from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[1]
SERVERS = ("redis-server", "redis-cli")

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::[-?]([^}]*))?\})")
# A server listens at its container's address alone; here that is one of the many that a machine has for itself.
_WRAPPERS = {
    "redis-server": 'exec {path} "$@" --bind "$AT" --repl-diskless-sync-delay 0 --shutdown-timeout 0',
    "redis-cli": 'exec {path} -h "${{AT:-127.0.0.1}}" "$@"',
}


def composed(*files: str, **variables: str) -> Any:
    """The project that `docker compose -f FILE -f FILE …` has, by paths from the root. A variable that is not given has
    its default, or what is said of it."""
    merged: Any = {}
    for file in files:
        text = (ROOT / file).read_text(encoding="utf-8")
        merged = _merge(merged, _interpolated(yaml.safe_load(text), variables))
    return merged


def _merge(under: Any, over: Any, key: str = "") -> Any:
    """Maps by their keys, volumes by where they are mounted; all else that these files have is replaced."""
    if isinstance(under, dict) and isinstance(over, dict):
        shared = {name: _merge(under[name], over[name], name) for name in under.keys() & over.keys()}
        return {**under, **over, **shared}
    if key == "volumes":
        return list({volume.split(":")[1]: volume for volume in [*under, *over]}.values())
    assert key == "command" or not isinstance(under, list), f"Compose may join lists of {key}: tell this file how"
    return over


def _interpolated(part: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(part, dict):
        return {key: _interpolated(value, variables) for key, value in part.items()}
    if isinstance(part, list):
        return [_interpolated(value, variables) for value in part]
    if isinstance(part, str):
        return _VARIABLE.sub(lambda found: found[1] or variables.get(found[2], found[3] or ""), part)
    return part


class Containers:
    """Services of a project as processes: command, environment and a folder for /data, as their containers have them.
    All that run end with the block."""

    def __init__(self, services: Any, folder: Path) -> None:
        self._services = services
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._programs = folder / "bin"

    def __enter__(self) -> Self:
        self._programs.mkdir()
        for name in SERVERS:
            path = shutil.which(name)
            if path is None and os.environ.get("CI"):
                pytest.fail(f"{name} is not on PATH, and CI tests with it: see .ci/run")
            if path is None:
                pytest.skip(f"{name} is not installed")
            program = self._programs / name
            program.write_text(f"#!/bin/sh\n{_WRAPPERS[name].format(path=path)}\n")
            program.chmod(0o700)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with ExitStack() as ending:
            for name in list(self._running):
                ending.callback(self.kill, name)

    def start(self, name: str) -> subprocess.Popen[bytes]:
        service, folder = self._services[name], self._folder / name
        folder.mkdir(exist_ok=True)
        with (folder / "log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                service["command"], cwd=folder, env=self._environment(name), stdout=log, stderr=subprocess.STDOUT
            )
        return self._running[name]

    def stop(self, name: str) -> None:
        process = self._running.pop(name)
        process.terminate()
        process.wait(PATIENCE)

    def kill(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def healthy(self, name: str) -> bool:
        """Whether the health check of the service passes."""
        test = self._services[name]["healthcheck"]["test"]
        return subprocess.run(["sh", "-c", test], env=self._environment(name), check=False).returncode == 0

    def log(self, name: str) -> str:
        return (self._folder / name / "log").read_text(encoding="utf-8")

    def forget_log(self, name: str) -> None:
        (self._folder / name / "log").write_bytes(b"")

    def _environment(self, name: str) -> dict[str, str]:
        return {"PATH": f"{self._programs}:{os.defpath}", **self._services[name].get("environment", {})}
