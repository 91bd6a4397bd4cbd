"""The same for a library whose calls block."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from benchmarks.peers.drive.on_threads import BlockingPeer, main
from benchmarks.peers.drive.work import Payload, Work


class BlockingLists(BlockingPeer):
    name = "blocking lists"
    packages = ("redis",)
    settings = "none"
    guarantees = "none"
    at_once = 2

    def __init__(self, url: str, concurrency: int, work: Work) -> None:
        super().__init__(url, concurrency, work)
        self._redis = Redis.from_url(url, protocol=2, max_connections=concurrency + 100)

    def publish(self, lead: Payload) -> None:
        self._redis.rpush("leads", json.dumps(lead))

    @contextmanager
    def working(self) -> Iterator[None]:
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                if popped := self._redis.blpop(["leads"], timeout=1):
                    self.work.run_blocking(json.loads(popped[1])["leadId"])

        threads = [threading.Thread(target=work) for _ in range(self.concurrency)]
        for thread in threads:
            thread.start()
        yield
        stop.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(BlockingLists)
