"""Dramatiq, driven for the benchmark in an environment of requirements.txt: see ../drive."""

# mypy: ignore-errors
# Dramatiq is not installed where this project is checked.

import sys
from contextlib import contextmanager
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.worker import Worker
from redis import Redis

sys.path.append(str(Path(__file__).parents[1]))
from drive.on_threads import BlockingPeer, main
from drive.work import Payload, Work


class Dramatiq(BlockingPeer):
    name = "Dramatiq"
    packages = ("dramatiq",)
    settings = (
        "hiredis, worker_threads as asked for (8 by default) and twice as many prefetched, one thread publishes; "
        "dramatiq-gevent was no faster"
    )
    guarantees = (
        "Acknowledged after the actor; up to 20 retries with backoff, then a dead letter for 7 days. What a dead "
        "worker held runs again when it has missed its heartbeat for 60 s."
    )

    def __init__(self, url: str, concurrency: int, work: Work) -> None:
        super().__init__(url, concurrency, work)
        # redis-py refuses the hundred-and-first connection by default, and each thread acknowledges over one.
        client = Redis.from_url(url, max_connections=concurrency + 100)
        self._broker = RedisBroker(client=client)  # with its default middleware: retries, time limits and so on

        @dramatiq.actor(broker=self._broker)
        def handle(lead: Payload) -> None:
            self.work.run_blocking(lead["leadId"])

        self._handle = handle

    def publish(self, lead: Payload) -> None:
        self._handle.send(lead)

    @contextmanager
    def working(self):
        worker = Worker(self._broker, worker_threads=self.concurrency)  # what each process of `dramatiq` runs
        worker.start()
        try:
            yield
        finally:
            worker.stop(10_000)


if __name__ == "__main__":
    main(Dramatiq)
