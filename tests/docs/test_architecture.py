"""The page about the architecture lists the layers that the linter holds."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_layers_are_those_that_are_checked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [contract] = [one for one in settings["tool"]["importlinter"]["contracts"] if one["id"] == "framework"]
    checked = [re.findall(r"\w+", layer) for layer in contract["layers"]]
    page = (ROOT / "docs/architecture.md").read_text()
    [block] = re.findall(r"^ eventbus:  (.*?)^```", page, re.MULTILINE | re.DOTALL)
    told = re.sub(r"  +(no one|the seam).*", "", re.sub(r",\n +", ", ", block))
    assert [re.findall(r"\w+", line) for line in told.strip().splitlines()] == checked
