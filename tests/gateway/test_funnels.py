"""/api/funnels."""

from typing import Any

import pytest

from tests.gateway.client import Client
from tests.gateway.conftest import FUNNEL, Tables
from tests.gateway.test_leads import NOWHERE


async def test_a_funnel_comes_back_as_it_was_given_with_ids(admin: Client, ann: Client) -> None:
    created = await admin.post("/api/funnels", FUNNEL)
    assert created.status == 201
    funnel = created.body
    assert created.headers["Location"] == f"/api/funnels/{funnel['id']}"
    assert [step["name"] for step in funnel["steps"]] == ["New", "Won", "Lost"]
    templates = funnel["steps"][0]["taskTemplates"]
    assert [template["title"] for template in templates] == ["Call", "Send offer", "Check credit"]
    assert templates[0] == {
        "id": templates[0]["id"],
        "title": "Call",
        "description": "Within a day",
        "dueInHours": 24.0,
        "after": None,
    }
    assert templates[1]["after"] == "Call"
    assert (await ann.get(created.headers["Location"])).body == funnel
    assert (await ann.get("/api/funnels")).body == {"items": [funnel], "nextCursor": None}


async def test_only_admins_write(ann: Client, tables: Tables) -> None:
    answer = await ann.post("/api/funnels", FUNNEL)
    assert answer.status == 403
    assert "admin" in answer.body["detail"]
    assert await tables.count("funnels") == 0


async def test_funnels_are_paged(admin: Client) -> None:
    names = [f"Funnel {n}" for n in range(3)]
    for name in names:
        await admin.post("/api/funnels", {"name": name, "steps": [{"name": "One"}]})
    assert [funnel["name"] for funnel in await admin.all_of("/api/funnels?limit=1")] == names[::-1]


def _templates(*templates: dict[str, Any]) -> dict[str, Any]:
    return {"name": "F", "steps": [{"name": "S", "taskTemplates": list(templates)}]}


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"name": "F"},
        {"name": "F", "steps": []},
        {"name": "", "steps": [{"name": "S"}]},
        {"name": "F", "steps": [{"name": "S"}], "color": "red"},
        {"name": "F", "steps": [{"name": "S", "id": NOWHERE}]},
        {"name": "F", "steps": [{"name": "S"}] * 101},
        _templates({"title": ""}),
        _templates({"title": "A", "after": "B"}),
        _templates({"title": "A", "after": "A"}),
        _templates({"title": "A", "after": "B"}, {"title": "B", "after": "A"}),
        _templates({"title": "A", "after": "B"}, {"title": "B", "after": "C"}, {"title": "C", "after": "B"}),
        _templates({"title": "A"}, {"title": " A "}),
        _templates({"title": "A", "dueInHours": -1}),
        _templates({"title": "A", "dueInHours": 1e9}),
        _templates({"title": "A", "dueInHours": "24"}),
        _templates({"title": "A", "description": "bell \u0007"}),
    ],
)
async def test_a_bad_funnel_is_refused_and_not_stored(content: object, admin: Client, tables: Tables) -> None:
    answer = await admin.post("/api/funnels", content)
    assert answer.status == 422, answer
    assert answer.body["errors"]
    for table in ("funnels", "steps", "task_templates"):
        assert await tables.count(table) == 0


async def test_a_template_may_come_after_one_that_is_listed_later(admin: Client) -> None:
    answer = await admin.post("/api/funnels", _templates({"title": "A", "after": "B"}, {"title": "B"}))
    assert answer.status == 201
