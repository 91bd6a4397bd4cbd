"""X-Correlation-Id and traceparent: in, out, and on every event."""

import json

import pytest

from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_given_id_comes_back_and_travels(ann: Client, tables: Tables) -> None:
    answer = await ann.post("/api/leads", {"name": "Lea"}, X_Correlation_Id="order-7/a.b:c", traceparent=TRACEPARENT)
    assert answer.headers["X-Correlation-Id"] == "order-7/a.b:c"
    meta = json.loads((await tables.events())[0]["meta"])
    assert (meta["correlationId"], meta["traceparent"]) == ("order-7/a.b:c", TRACEPARENT)


@pytest.mark.parametrize("given", [None, "", "a b", "é", "<script>", "x" * 129, "a\tb"])
async def test_an_absent_or_odd_id_is_replaced(given: str | None, ann: Client, tables: Tables) -> None:
    headers = {} if given is None else {"X_Correlation_Id": given}
    answer = await ann.post("/api/leads", {"name": "Lea"}, **headers)
    made = answer.headers["X-Correlation-Id"]
    assert len(made) == 36
    assert made != given
    assert json.loads((await tables.events())[0]["meta"])["correlationId"] == made


@pytest.mark.parametrize("given", ["", "00-short", TRACEPARENT.upper(), "00-" + "0" * 32 + "-00f067aa0ba902b7-01"])
async def test_an_odd_traceparent_is_dropped(given: str, ann: Client, tables: Tables) -> None:
    assert (await ann.post("/api/leads", {"name": "Lea"}, traceparent=given)).status == 201
    assert "traceparent" not in json.loads((await tables.events())[0]["meta"])


async def test_every_answer_has_an_id(gateway: Gateway, ann: Client) -> None:
    nobody = gateway.bearer("")
    answers = [
        await nobody.get("/livez", X_Correlation_Id="c"),
        await nobody.get("/readyz", X_Correlation_Id="c"),
        await nobody.get("/api/leads", X_Correlation_Id="c"),
        await nobody.get("/nowhere", X_Correlation_Id="c"),
        await ann.post("/api/leads", {}, X_Correlation_Id="c"),
    ]
    assert [answer.status for answer in answers] == [200, 200, 401, 404, 422]
    assert all(answer.headers["X-Correlation-Id"] == "c" for answer in answers)
    headers = {"X-Correlation-Id": "c"}
    async with gateway.session.ws_connect(f"{gateway.url}/ws/chat?token={ann.token}", headers=headers) as socket:
        assert socket._response.headers["X-Correlation-Id"] == "c"
