"""What the pages say of the source's structure is what the checks hold it to."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("package", "contract_id"), [("eventbus", "framework"), ("gateway", "gateway")])
def test_the_layers_are_those_that_are_checked(package: str, contract_id: str) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = [one for one in settings["tool"]["importlinter"]["contracts"] if one["id"] == contract_id]
    checked = [re.findall(r"\w+", layer) for layer in contract["layers"]]
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    [block] = re.findall(rf"^ {package}:  (.*?)^```", page, re.MULTILINE | re.DOTALL)
    named = [re.sub(r"  .*", "", line.strip()) for line in block.splitlines() if not line.startswith(" " * 20)]
    assert [re.findall(r"\w+", line) for line in named] == checked
