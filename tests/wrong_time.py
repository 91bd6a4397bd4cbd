"""Servers whose clock a test may set."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")


class WrongTime:
    """`binary` starts the server; `set(seconds)` moves its clock, away from that of this machine."""

    def __init__(self, folder: Path, server: Path) -> None:
        self._offset = folder / "offset"
        self._offset.write_bytes(struct.pack("l", 0))
        library = folder / "wrong_time.so"
        subprocess.run([_compiler(), "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True)
        self.binary = folder / server.name
        self.binary.write_text(
            f'#!/bin/sh\nexport LD_PRELOAD={library} WRONG_TIME={self._offset}\nexec {server} "$@"\n', encoding="utf-8"
        )
        self.binary.chmod(0o755)

    def set(self, seconds: int) -> None:
        with self._offset.open("r+b") as offset:
            offset.write(struct.pack("l", seconds))


def _compiler() -> str:
    found = shutil.which("cc")
    if found is None or sys.platform != "linux":
        if os.environ.get("CI"):
            pytest.fail("no C compiler, and CI tests with clocks that are set: see .ci/run")
        pytest.skip("needs Linux and a C compiler, for a server whose clock can be set")
    return found
