"""Who takes part: this project, the raw client, and the peers of benchmarks/peers, each a program that speaks the
drivers' protocol (benchmarks.contenders.driver)."""

import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from benchmarks.running.outcome import Absence, Competitor

ROOT = Path(__file__).parents[2]
OURS, RAW = "eventbus", "raw"
DESCRIBE_TIMEOUT = 60.0  # seconds


@dataclass(frozen=True)
class Contender:
    """`argv`: its driver, without a task."""

    key: str
    argv: tuple[str, ...]
    about: Competitor


class Environments(Protocol):
    """benchmarks.peers.environments: what each peer runs in. PEERS: the names of all."""

    @property
    def PEERS(self) -> Sequence[str]: ...  # noqa: N802 - a constant of a module

    def command(self, peer: str) -> list[str]:
        """Its driver, in an environment that is prepared if it was not. Raises NotPrepared, which says why."""

    def prepared(self, peer: str) -> bool:
        """Whether `command` has nothing left to prepare."""


def environments() -> Environments:
    return cast(Environments, importlib.import_module("benchmarks.peers.environments"))


def chosen(choice: str, known: Sequence[str]) -> list[str]:
    """The peers that `--peers all|none|NAME,…` means. Raises ValueError that names those there are."""
    if choice in {"all", "none"}:
        return list(known) if choice == "all" else []
    names = [name.strip() for name in choice.split(",") if name.strip()]
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"no such peer: {', '.join(unknown)}. There are: {', '.join(known) or 'none'}")
    return names


def own() -> list[Contender]:
    return [_described(key, [sys.executable, "-m", f"benchmarks.{module}"]) for key, module in _OWN.items()]


_OWN = {OURS: "ours", RAW: "raw"}


def peer(name: str, where: Environments) -> Contender | Absence:
    """A peer that is ready, or why it takes no part. May take minutes: its environment is prepared on demand."""
    try:
        return _described(name, where.command(name))
    except Exception as error:  # noqa: BLE001 - whatever keeps one peer out is a row of the table, and ends no run
        return Absence(contender=name, kind="unprepared", reason=str(error) or type(error).__name__)


def _described(key: str, argv: list[str]) -> Contender:
    said = subprocess.run(
        [*argv, "describe"], cwd=ROOT, capture_output=True, text=True, timeout=DESCRIBE_TIMEOUT, check=False
    )
    if said.returncode:
        raise RuntimeError(f"its driver cannot describe itself: {_last_line(said.stderr)}")
    about = json.loads(said.stdout.splitlines()[-1])
    return Contender(key, tuple(argv), Competitor(key=key, **about))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]
