"""An environment for a peer, made by the real pip from a wheel that is made here, as no index may be in reach."""

import os
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.peers import environments
from benchmarks.peers.environments import NotPrepared, command, commands, environment, prepare, prepared

METADATA = "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: here\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a peer called `local`, whose driver prints what its one package says."""
    folder = tmp_path / "drivers" / "local"
    folder.mkdir(parents=True)
    wheel = folder / "greeting-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("greeting.py", "TEXT = 'good day'\n")
        archive.writestr("greeting-1.0.dist-info/METADATA", METADATA)
        archive.writestr("greeting-1.0.dist-info/WHEEL", WHEEL)
        archive.writestr("greeting-1.0.dist-info/RECORD", "")
    (folder / "requirements.txt").write_text(f"{wheel}\n")
    (folder / "driver.py").write_text("import greeting, sys\nprint(greeting.TEXT, sys.argv[1])\n")
    monkeypatch.setattr(environments, "DRIVERS", folder.parent)
    monkeypatch.setattr(environments, "PEERS", ("local", "bullmq"))
    monkeypatch.setenv(environments.FOLDER, str(tmp_path / "kept"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


def test_a_driver_runs_with_its_pins_and_is_prepared_once(peer: Path) -> None:
    assert not prepared("local")
    argv = command("local")
    assert (
        subprocess.run([*argv, "describe"], capture_output=True, text=True, check=True).stdout == "good day describe\n"
    )
    assert prepared("local")
    kept = environment("local") / "kept"
    kept.touch()
    assert command("local") == argv
    assert kept.exists()


def test_other_pins_are_another_environment(peer: Path) -> None:
    before = prepare("local")
    with (peer / "requirements.txt").open("a") as pins:
        pins.write("# a new day\n")
    assert not prepared("local")
    assert prepare("local") != before


def test_what_was_interrupted_is_made_anew(peer: Path) -> None:
    folder = environment("local")
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text("half of it")
    assert not prepared("local")
    assert subprocess.run([*command("local"), "x"], capture_output=True, text=True, check=True).stdout == "good day x\n"


def test_an_interpreter_that_is_gone_is_noticed(peer: Path) -> None:
    python = prepare("local") / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python")
    assert not prepared("local")


def test_two_at_once_prepare_it_once(peer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []
    install = environments._install

    def counted(name: str, folder: Path) -> None:
        installed.append(name)
        install(name, folder)

    monkeypatch.setattr(environments, "_install", counted)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(prepare, ["local", "local"])
    assert (first, installed) == (second, ["local"])


def test_a_package_that_is_not_to_be_had_is_named(peer: Path) -> None:
    (peer / "requirements.txt").write_text("no-such-package-anywhere==1.0\n")
    with pytest.raises(NotPrepared, match=r"local cannot be measured here: pip could not install .*no-such-package"):
        command("local")
    assert not prepared("local")


def test_without_node_the_others_are_prepared_all_the_same(
    peer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(peer.parent / "bullmq")
    monkeypatch.setenv("PATH", str(tmp_path))
    both = commands(["bullmq", "local"])
    assert isinstance(both["local"], list)
    assert "node was not found. Install Node.js >= 20" in str(both["bullmq"])


def test_a_node_that_is_too_old_is_named(peer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned(peer.parent / "bullmq")
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\necho v18.20.1\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(NotPrepared, match=r"node is v18\.20\.1\. Install Node\.js >= 20"):
        command("bullmq")


def test_a_peer_that_there_is_not(peer: Path) -> None:
    with pytest.raises(NotPrepared, match=r"no driver for it\. There are: local, bullmq"):
        command("rabbit")


def pinned(folder: Path) -> None:
    folder.mkdir()
    for name in ("package.json", "package-lock.json"):
        (folder / name).write_text("{}")
