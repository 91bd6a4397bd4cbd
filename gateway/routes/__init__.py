"""One module a flow; `ENDPOINTS` is the whole table."""

from gateway.api import Endpoint
from gateway.routes.agents import agents
from gateway.routes.chat import chat
from gateway.routes.documents import documents
from gateway.routes.events import events
from gateway.routes.funnels import funnels
from gateway.routes.health import health
from gateway.routes.leads import leads
from gateway.routes.messages import conversations, messages
from gateway.routes.metrics import metrics
from gateway.routes.notifications import notifications
from gateway.routes.tasks import tasks

ENDPOINTS: list[Endpoint] = [
    *leads.endpoints,
    *funnels.endpoints,
    *tasks.endpoints,
    *notifications.endpoints,
    *agents.endpoints,
    *messages.endpoints,
    *conversations.endpoints,
    *events.endpoints,
    *chat.endpoints,
    *health.endpoints,
    *metrics.endpoints,
    *documents.endpoints,
]
