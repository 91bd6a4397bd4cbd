"""A worker process that serves its metrics: `python -m tests.integration.observed`. It prints the port."""

from eventbus import Backoff, Context, Event, EventBus, Group, Reject, RetryPolicy, Worker
from eventbus.process.loop import run
from eventbus.telemetry import prometheus


class Observed(Event, type="observed.thing"):
    number: int


eyes = Group("eyes", retry=RetryPolicy(attempts=2, backoff=Backoff.fixed(0.05)), concurrency=5)


@eyes.on(Observed)
async def look(event: Observed, ctx: Context) -> None:
    if event.number % 10 == 0 and ctx.attempt == 1:
        raise RuntimeError("the first look at every tenth fails")
    if event.number % 25 == 1:
        raise Reject("nothing to see")


async def main() -> None:
    async with EventBus() as bus:
        port, stop = prometheus.serve(bus.metrics, 0)
        print(port, flush=True)
        await Worker(bus, [eyes]).run()
        stop()


if __name__ == "__main__":
    run(main())
