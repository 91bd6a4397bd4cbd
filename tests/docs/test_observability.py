"""The tables of docs/observability.md say what the code does."""

import re

from eventbus.telemetry import DEFINITIONS
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "observability.md").read_text()
_ROW = re.compile(r"^\| `(eventbus_\w+)` \| (\w+) \| ([\w, ]*?) ?\| (.+) \|$", re.MULTILINE)


def test_the_table_of_metrics_is_what_is_defined() -> None:
    defined = [(name, kind, ", ".join(labels), text) for name, kind, labels, text in DEFINITIONS]
    assert _ROW.findall(PAGE) == defined


def test_the_table_of_attributes_is_what_spans_have() -> None:
    rows = set(re.findall(r"^\| `([a-z_.]+)` \| (?:both|process|publish) \|", PAGE, re.MULTILINE))
    source = (ROOT / "eventbus" / "telemetry" / "tracing.py").read_text()
    written = set(re.findall(r'"((?:messaging|cloudevents|eventbus|error)\.[a-z_.]+)"', source))
    assert rows == written
