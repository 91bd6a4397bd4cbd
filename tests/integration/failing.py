"""A worker process whose handler always fails: `python -m tests.integration.failing`."""

import time

from eventbus import Backoff, Context, Event, EventBus, Group, RetryPolicy, Worker
from eventbus.process.loop import run


class Doomed(Event, type="trial.doomed"):
    """Its handler fails, always."""

    name: str


trials = Group("trials", retry=RetryPolicy(attempts=3, backoff=Backoff.exponential(2.0)))


@trials.on(Doomed)
async def fail(event: Doomed, ctx: Context) -> None:
    print(f"attempt {ctx.attempt} {time.time()}", flush=True)
    raise RuntimeError(f"{event.name} fails on purpose")


async def main() -> None:
    async with EventBus() as bus:
        await Worker(bus, [trials]).run()


if __name__ == "__main__":
    run(main())
