"""What endpoints are about, so that tests can be made of the table: an object for each id, a body for each model.

A new endpoint whose path or body is not known here fails those tests, with the name of what lacks.
"""

import itertools
import re
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from gateway.endpoints.api import JSON, Endpoint
from gateway.events.cloudevents import STRUCTURED
from gateway.events.session_bodies import NewEvents, NewSession
from gateway.routes import ENDPOINTS
from handlers.agent.models import NewAgent
from handlers.channel.models import NewConnection
from handlers.funnel.models import NewFunnel
from handlers.lead.models import LeadChanges, Move, NewLead
from handlers.message.models import NewMessage
from handlers.subscription.models import NewSubscription
from handlers.task.models import NewTask
from tests.gateway.browsers import browser
from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables

_NAMES = re.compile(r"\{(\w+)\}")

NOWHERE = "01a20176-0000-7000-8000-00000000dead"
OWNER = "root"


class Scene:
    """An organization, its objects, and who made them: a user who is an admin as well."""

    def __init__(self, gateway: Gateway, tables: Tables, organization: str) -> None:
        self.organization = organization
        self.owner: Client = gateway.caller(OWNER, organization, "admin", "user")
        self.tables = tables
        self.made: dict[str, str] = {}

    async def id_of(self, name: str) -> str:
        """Of the object that this path parameter, or field, names; made when it is first asked for."""
        if name not in self.made:
            assert name in MAKERS, f"nothing says how to make what {name!r} names: see tests/gateway/objects.py"
            self.made[name] = await MAKERS[name](self)
        return self.made[name]

    async def url(self, path: str) -> str:
        """With ids of this organization's objects."""
        return path.format_map({name: await self.id_of(name) for name in _NAMES.findall(path)})

    async def body(self, model: type[BaseModel]) -> dict[str, Any]:
        """One that would do, with ids of this organization's objects."""
        assert model in BODIES, f"nothing says what a body of {model.__name__} is: see tests/gateway/objects.py"
        return await BODIES[model](self)


Maker = Callable[[Scene], Awaitable[str]]


async def _create(scene: Scene, path: str, model: type[BaseModel]) -> Any:
    answer = await scene.owner.post(path, await scene.body(model))
    assert answer.status in {200, 201, 202}, answer
    return answer.body


async def _funnel(scene: Scene) -> str:
    funnel = await _create(scene, "/api/funnels", NewFunnel)
    scene.made["step_id"] = funnel["steps"][1]["id"]
    return str(funnel["id"])


async def _step(scene: Scene) -> str:
    await scene.id_of("funnel_id")
    return scene.made["step_id"]


async def _lead(scene: Scene) -> str:
    return str((await _create(scene, "/api/leads", NewLead))["id"])


async def _task(scene: Scene) -> str:
    return str((await _create(scene, "/api/tasks", NewTask))["id"])


async def _notification(scene: Scene) -> str:
    """Nobody creates one by a request."""
    notification = "01a20176-0000-7000-8000-000000000001"
    await scene.tables.execute(
        "INSERT INTO notifications (organization, id, user_id, title, message, notification_type) "
        "VALUES ($1, $2, $3, 't', 'm', 'INFO')",
        scene.organization,
        notification,
        OWNER,
    )
    return notification


async def _event(scene: Scene) -> str:
    """The one of its lead."""
    lead = await scene.id_of("lead_id")
    return str((await scene.owner.get(f"/api/leads/{lead}/events")).body["items"][0]["id"])


async def _agent(scene: Scene) -> str:
    return str((await _create(scene, "/api/agents", NewAgent))["id"])


async def _message(scene: Scene) -> str:
    told = (await _create(scene, "/api/messages", NewMessage))["data"]
    scene.made["conversation_id"] = told["conversationId"]
    return str(told["messageId"])


async def _conversation(scene: Scene) -> str:
    """The one of its message."""
    await scene.id_of("message_id")
    return scene.made["conversation_id"]


async def _connection(scene: Scene) -> str:
    return str((await _create(scene, "/api/connections", NewConnection))["id"])


async def _subscription(scene: Scene) -> str:
    return str((await _create(scene, "/api/push-subscriptions", NewSubscription))["id"])


async def _session(scene: Scene) -> str:
    return str((await _create(scene, "/api/sessions", NewSession))["sessionId"])


MAKERS: dict[str, Maker] = {
    "funnel_id": _funnel,
    "step_id": _step,
    "lead_id": _lead,
    "task_id": _task,
    "notification_id": _notification,
    "event_id": _event,
    "agent_id": _agent,
    "message_id": _message,
    "conversation_id": _conversation,
    "connection_id": _connection,
    "subscription_id": _subscription,
    "session_id": _session,
}


async def _new_funnel(_scene: Scene) -> dict[str, Any]:
    return {"name": "Sales", "steps": [{"name": "New"}, {"name": "Won", "taskTemplates": [{"title": "Call"}]}]}


async def _new_lead(scene: Scene) -> dict[str, Any]:
    return {"name": "Lea", "funnelId": await scene.id_of("funnel_id")}


async def _move(scene: Scene) -> dict[str, Any]:
    return {"stepId": await scene.id_of("step_id")}


async def _new_task(scene: Scene) -> dict[str, Any]:
    return {"title": "Call", "leadId": await scene.id_of("lead_id")}


async def _lead_changes(_scene: Scene) -> dict[str, Any]:
    return {"name": "Leo"}


async def _new_agent(_scene: Scene) -> dict[str, Any]:
    return {"name": "Weather"}


async def _new_message(scene: Scene) -> dict[str, Any]:
    return {"agentId": await scene.id_of("agent_id"), "message": "Will it rain?", "channel": "web"}


_accounts = itertools.count(1)


async def _new_connection(scene: Scene) -> dict[str, Any]:
    """An account is connected once, wherever."""
    return {"channel": "telegram", "account": str(next(_accounts)), "agentId": await scene.id_of("agent_id")}


async def _new_subscription(_scene: Scene) -> dict[str, Any]:
    return browser("https://push.example.com/1").subscription


async def _new_session(_scene: Scene) -> dict[str, Any]:
    return {"metadata": {"from": "tests"}}


async def _new_events(scene: Scene) -> dict[str, Any]:
    return {"type": "lead.enrich", "data": {"leadId": await scene.id_of("lead_id")}}


BODIES: dict[type[BaseModel], Callable[[Scene], Awaitable[dict[str, Any]]]] = {
    NewFunnel: _new_funnel,
    NewLead: _new_lead,
    LeadChanges: _lead_changes,
    Move: _move,
    NewTask: _new_task,
    NewAgent: _new_agent,
    NewMessage: _new_message,
    NewConnection: _new_connection,
    NewSubscription: _new_subscription,
    NewSession: _new_session,
    NewEvents: _new_events,
}


async def _cloud_event(_scene: Scene) -> tuple[str, bytes]:
    event = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "lead.enrich", "data": {"leadId": NOWHERE}}
    return STRUCTURED, orjson.dumps(event)


# Of raw endpoints that take a body: its content type, and the body.
RAW_BODIES: dict[str, Callable[[Scene], Awaitable[tuple[str, bytes]]]] = {"publish_events": _cloud_event}


async def content_of(endpoint: Endpoint, scene: Scene) -> tuple[str, bytes | None]:
    """The content type and the bytes of a body that would do."""
    if endpoint.body is not None:
        return JSON, orjson.dumps(await scene.body(endpoint.body))
    if not endpoint.takes:
        return JSON, None
    assert endpoint.name in RAW_BODIES, f"nothing says what {endpoint.name} takes: see tests/gateway/objects.py"
    return await RAW_BODIES[endpoint.name](scene)


def nowhere(path: str) -> str:
    """With ids that nobody has."""
    return _NAMES.sub(NOWHERE, path)


def every(condition: Callable[[Endpoint], bool] = lambda _endpoint: True) -> list[Any]:
    """Endpoints of the table by each of their paths, for `parametrize(("endpoint", "path"), …)`."""
    return [
        pytest.param(endpoint, path, id=f"{endpoint.method} {path}")
        for endpoint in ENDPOINTS
        for path in endpoint.paths
        if condition(endpoint)
    ]
