"""An environment for each peer: its pins installed once, kept between runs, away from this project's own packages."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

DRIVERS = Path(__file__).parent
FOLDER = "EVENTBUS_BENCH_PEERS_DIR"
NODE = 20  # the oldest that driver.mjs runs on
TIMEOUT = 600.0  # seconds for one step; an index that does not answer must not hold up a whole run

PEERS = ("bullmq", "faststream", "taskiq", "saq", "streaq", "arq", "dramatiq", "celery")
ON_NODE = ("bullmq",)


class NotPrepared(Exception):
    """Why a peer cannot be measured here, and what would help."""

    def __init__(self, peer: str, why: str) -> None:
        super().__init__(f"{peer} cannot be measured here: {why}")


def command(peer: str) -> list[str]:
    """What runs its driver; prepared first if need be. Raises NotPrepared."""
    folder = prepare(peer)
    if peer in ON_NODE:
        return [_node(peer), str(DRIVERS / peer / "driver.mjs"), "--modules", str(folder)]
    return [str(_python(folder)), str(DRIVERS / peer / "driver.py")]


def commands(peers: Iterable[str] = PEERS) -> dict[str, list[str] | NotPrepared]:
    """The same of several, prepared side by side: most of it is waiting for an index."""

    def attempt(peer: str) -> list[str] | NotPrepared:
        try:
            return command(peer)
        except NotPrepared as why:
            return why

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(peers := list(peers), pool.map(attempt, peers), strict=True))


def prepare(peer: str) -> Path:
    """Its environment. One that is there is used as it is: its name changes with the pins. Raises NotPrepared."""
    folder = environment(peer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if not prepared(peer):
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run has left
            (_install_on_node if peer in ON_NODE else _install)(peer, folder)
            _stamp(folder).touch()
    return folder


def prepared(peer: str) -> bool:
    folder = environment(peer)
    # An interpreter that was removed since leaves a broken link.
    return _stamp(folder).exists() and (peer in ON_NODE or _python(folder).exists())


def environment(peer: str) -> Path:
    if peer not in PEERS:
        raise NotPrepared(peer, f"there is no driver for it. There are: {', '.join(PEERS)}")
    base = Path(os.environ.get(FOLDER) or Path.cwd() / ".eventbus" / "peers")
    made_of = b"".join(pins.read_bytes() for pins in _pins(peer))
    if peer not in ON_NODE:
        made_of += sys.version.encode()
    return base.absolute() / f"{peer}-{hashlib.sha256(made_of).hexdigest()[:12]}"


def _pins(peer: str) -> list[Path]:
    names = ("package.json", "package-lock.json") if peer in ON_NODE else ("requirements.txt",)
    return [DRIVERS / peer / name for name in names]


def _install(peer: str, folder: Path) -> None:
    (pins,) = _pins(peer)
    venv = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    _run(peer, venv, "venv could not make an environment.")
    # This interpreter's own pip, which need not be installed first; the pins are complete, so nothing is resolved.
    pip = [sys.executable, "-m", "pip", "--python", str(_python(folder)), "--quiet", "--disable-pip-version-check"]
    install = [*pip, "--no-input", "install", "--no-deps", "--no-compile", "--requirement", str(pins)]
    _run(peer, install, f"pip could not install {pins}; is a package index in reach?")


def _install_on_node(peer: str, folder: Path) -> None:
    _node(peer)
    if not (npm := shutil.which("npm")):
        raise NotPrepared(peer, "npm was not found. Install it beside node, or leave this peer out")
    folder.mkdir()
    for pins in _pins(peer):
        shutil.copy(pins, folder)
    # No scripts: what they would build comes as a package for each common platform, and is optional.
    install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
    _run(peer, install, f"npm could not install {_pins(peer)[-1]}; is a package registry in reach?")


def _node(peer: str) -> str:
    if not (node := shutil.which("node")):
        raise NotPrepared(peer, f"node was not found. Install Node.js >= {NODE}, or leave this peer out")
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout.strip()
    if int(answer.removeprefix("v").partition(".")[0] or 0) < NODE:
        raise NotPrepared(peer, f"{node} is {answer or 'broken'}. Install Node.js >= {NODE}, or leave this peer out")
    return node


def _run(peer: str, arguments: list[str], what: str) -> None:
    try:
        ended = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise NotPrepared(peer, f"{what} It took more than {TIMEOUT:.0f} s") from None
    if ended.returncode:
        said = [line for line in (ended.stderr + ended.stdout).splitlines() if line.strip()]
        errors = [line for line in said if "error" in line.lower()]
        raise NotPrepared(peer, f"{what} It said: {' / '.join((errors or said)[:3])}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two runs at once prepare a peer one after the other, and the second finds it prepared."""
    with folder.with_suffix(".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _stamp(folder: Path) -> Path:
    return folder / ".prepared"
