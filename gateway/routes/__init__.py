"""One module a flow; `ENDPOINTS` is the whole table."""

from gateway.endpoints.api import Endpoint
from gateway.routes.activity import activity
from gateway.routes.agents import agents
from gateway.routes.callbacks import callbacks
from gateway.routes.chat import chat
from gateway.routes.connections import connections
from gateway.routes.documents import documents
from gateway.routes.events import events
from gateway.routes.funnels import funnels
from gateway.routes.health import health
from gateway.routes.leads import leads
from gateway.routes.messages import conversations, messages
from gateway.routes.metrics import metrics
from gateway.routes.notifications import notifications
from gateway.routes.sessions import sessions
from gateway.routes.subscriptions import subscriptions
from gateway.routes.tasks import tasks
from gateway.routes.tickets import tickets
from gateway.routes.webhooks import webhooks

ENDPOINTS: list[Endpoint] = [
    *leads.endpoints,
    *funnels.endpoints,
    *tasks.endpoints,
    *notifications.endpoints,
    *agents.endpoints,
    *messages.endpoints,
    *conversations.endpoints,
    *connections.endpoints,
    *subscriptions.endpoints,
    *callbacks.endpoints,
    *tickets.endpoints,
    *webhooks.endpoints,
    *events.endpoints,
    *activity.endpoints,
    *sessions.endpoints,
    *chat.endpoints,
    *health.endpoints,
    *metrics.endpoints,
    *documents.endpoints,
]
