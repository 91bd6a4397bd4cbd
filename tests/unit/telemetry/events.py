"""Events and groups that the tests of metrics and spans have in common."""

from eventbus import Backoff, Context, Event, Group, RetryPolicy
from eventbus.errors import Reject, Unavailable


class Asked(Event, type="question.asked"):
    """`fate`: what its handler makes of it."""

    fate: str = "ack"


class Answered(Event, type="answer.given"):
    """Published by the handler of a question whose fate is "answer"."""


def oracle() -> Group:
    group = Group("oracle", retry=RetryPolicy(attempts=2, backoff=Backoff.fixed(0.01)))

    @group.on(Asked)
    async def ask(event: Asked, ctx: Context) -> None:
        match event.fate:
            case "retry" if ctx.attempt == 1:
                raise ValueError("postgresql://ann:hunter2@host says no")
            case "dead":
                raise Reject("no")
            case "snooze" if ctx.envelope.id not in _snoozed:
                _snoozed.add(ctx.envelope.id)
                raise Unavailable("the oracle", "asleep")
            case "answer":
                await ctx.publish(Answered())

    return group


def scribe() -> Group:
    group = Group("scribe")

    @group.on(Answered)
    async def write(event: Answered, ctx: Context) -> None:
        return

    return group


_snoozed: set[str] = set()
