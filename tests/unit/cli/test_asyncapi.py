"""`eventbus asyncapi`: of any application, without a server."""

import json
import sys
from pathlib import Path

import pytest

from tests.integration.commands import eventbus_anew, eventbus_here

MODULE = """
from eventbus import Context, Event, Group

class Sent(Event, type="asyncapi_parcel.sent"):
    parcel_id: str

post = Group("post-office")

@post.on(Sent)
async def deliver(event: Sent, ctx: Context) -> None: ...
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "asyncapi_parcels.py").write_text(MODULE)


def test_an_application_of_one_s_own() -> None:
    run = eventbus_here("asyncapi", "--app", "asyncapi_parcels", "--title", "Parcels", "--release", "7.1")
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["info"] == {"title": "Parcels", "version": "7.1"}
    assert told["operations"]["post-office.asyncapi_parcel"]["x-eventbus"]["group"] == "post-office"
    assert "asyncapi_parcel.sent" in told["channels"]["asyncapi_parcel"]["messages"]


def test_nothing_but_it_is_told_of_in_a_process_of_its_own(tmp_path: Path) -> None:
    run = eventbus_anew("asyncapi", "--app", "asyncapi_parcels", PYTHONPATH=":".join(path for path in sys.path if path))
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["info"] == {"title": "asyncapi_parcels", "version": "0.0.0"}
    assert list(told["components"]["messages"]) == ["asyncapi_parcel.sent"]


def test_what_is_no_application_is_refused() -> None:
    run = eventbus_here("asyncapi", "--app", "asyncapi_nowhere")
    assert run.returncode == 2
    assert "asyncapi_nowhere" in run.stderr
