"""The workflow of N8N that answers for an agent: what it is sent, what it may say, and when it is left in peace.

POST {N8N_BASE_URL}/webhook/{workflow}

    {"messageId", "conversationId", "organizationId", "userId", "channel", "message",
     "agent": {"id", "name", "model", "systemPrompt"}, "history": [{"role", "content", "messageId", "createdAt"}, …]}

`webhook-id` is the event's id, the same however often the call is repeated, so that the workflow can drop repeats. (A
message's own id would not do: it is only unique for its user.) With N8N_SIGNING_SECRET the call is signed, see
handlers.partners.signing. The answer is `{message, model?, tokensUsed?, finishReason?}`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import Field, StringConstraints, ValidationError

from eventbus import Circuit, Context, Reject, RetryLater
from handlers.common import fields
from handlers.partners.calls import HTTP, Answer, Unreachable, call
from handlers.partners.services import SERVICES
from handlers.partners.signing import sign

FAILURES = 3  # in a row open the circuit: as many as a message has attempts, so that an outage does not use them up
PAUSE = 5.0  # seconds
SLOW_AFTER = 10.0  # seconds without an answer, after which a call is slow
STEPS_ASIDE_AFTER = 11.0  # seconds, more than SLOW_AFTER: a call counts as slow before its place goes to another
SLOW_CALLS = 5  # of one workflow keep a process from calling it again: as many as a process answers at a time


class WorkflowAnswer(fields.Answer):
    """What else it says is its own business."""

    message: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    model: str | None = None
    tokens_used: Annotated[int, Field(ge=0)] | None = None
    finish_reason: str | None = None


async def ask(ctx: Context, workflow: str, payload: Mapping[str, Any]) -> WorkflowAnswer:
    """Raises Unreachable, RetryLater or Reject, as handlers.partners.calls has them, and SnoozeFor while the circuit
    is open.

    Each workflow has a circuit of its own: one that fails must not keep others from being called."""
    services = await ctx.use(SERVICES)
    [url] = services.require("The workflow service", "n8n_base_url")
    session = await ctx.use(HTTP)
    body = orjson.dumps(payload)
    headers = {"Content-Type": "application/json", "webhook-id": ctx.event_id}
    if services.n8n_signing_secret:
        headers |= sign(services.n8n_signing_secret, ctx.event_id, body)
    async with ctx.guarded(circuit_of(workflow)):
        answer = await call(
            session,
            "the workflow",
            "POST",
            f"{url.rstrip('/')}/webhook/{workflow}",
            body=body,
            headers=headers,
            timeout=services.n8n_timeout,
        )
        return _read(answer)


def circuit_of(workflow: str) -> Circuit:
    return Circuit(
        f"n8n:{workflow}",
        failures=FAILURES,
        pause=PAUSE,
        on=(Unreachable, RetryLater),
        slow_after=SLOW_AFTER,
        slow_calls=SLOW_CALLS,
    )


def _read(answer: Answer) -> WorkflowAnswer:
    """Raises Reject for JSON that is no answer: the workflow is not built right, and will say the same again."""
    try:
        return WorkflowAnswer.model_validate(answer.json())
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in error.errors()[:5]
        )
        raise Reject(f"the workflow's answer is none: {faults}") from None
