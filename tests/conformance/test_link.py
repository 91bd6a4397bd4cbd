"""The connection under everything: each reply to its caller, or Unavailable in time."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop
from structlog.testing import capture_logs

from eventbus.embedded.ports import free_port
from eventbus.errors import ConfigurationError, Full, Unavailable
from eventbus.redis.link import CONNECT_TIMEOUT, Link
from eventbus.redis.links import ReplyError
from tests.proxy import Proxy
from tests.servers import OwnRedis
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE, eventually, in_a_span, until

pytestmark = pytest.mark.one_server


@asynccontextmanager
async def linked(url: str, timeout: float = 5.0) -> AsyncIterator[Link]:
    link = Link(url, timeout=timeout, name="test")
    try:
        yield link
    finally:
        await link.close()


async def loses_no_reply(url: str) -> None:
    """10,000 commands; a third of their callers are cancelled, at any await. No reply may go to another caller."""
    chance = random.Random(7)
    wrong: list[object] = []

    async def ask(number: int) -> None:
        if number % 5:
            reply = await link.execute("ECHO", number)
            good = int(reply) == number
        else:
            reply = await link.pipeline([("ECHO", number), ("NOSUCHCOMMAND",), ("ECHO", -number)])
            good = (int(reply[0]), int(reply[2])) == (number, -number)
        if not good:
            wrong.append((number, reply))

    async with linked(url) as link:
        for start in range(0, 10_000, 200):
            tasks = [asyncio.create_task(ask(number)) for number in range(start, start + 200)]
            for task in tasks:
                if chance.random() < 1 / 3:
                    asyncio.get_running_loop().call_later(chance.choice((0, 0, 0.0002, 0.001)), task.cancel)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert not [result for result in results if not isinstance(result, asyncio.CancelledError | None)]
        assert await link.execute("ECHO", "end") == b"end"
    assert not wrong


async def hears_a_server_that_hangs_up_at_once(_: str) -> None:
    """It greets and goes: whoever has waited for the connection must not wait for ever."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"test\r\n")
        writer.write(b"+OK\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with linked(f"redis://127.0.0.1:{port}") as link, asyncio.timeout(PATIENCE):
        for _attempt in range(20):
            with pytest.raises(Unavailable):
                await link.execute("PING")
    server.close()


async def blames_no_server_for_a_loop_that_stood_still(url: str) -> None:
    """The command has not even left when the timer is over."""
    async with linked(url, timeout=0.4) as link:
        await link.ready()
        await asyncio.sleep(0.5)  # whatever watched the greeting has ended
        waiting = link.begin(("ECHO", "patience"))
        assert waiting is not None
        time.sleep(0.6)  # noqa: ASYNC251 - that is the point
        assert await waiting == b"patience"
        assert link.epoch == 1


def on_uvloop(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def on_asyncio(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


@pytest.mark.parametrize("run", [on_uvloop, on_asyncio])
@pytest.mark.parametrize(
    "rule",
    [loses_no_reply, hears_a_server_that_hangs_up_at_once, blames_no_server_for_a_loop_that_stood_still],
)
def test_on_both_event_loops_it(
    rule: Callable[[str], Coroutine[Any, Any, None]],
    run: Callable[[Coroutine[Any, Any, None]], None],
    redis_url: str,
) -> None:
    run(rule(redis_url))


async def test_a_refusal_reaches_its_caller_alone(redis_url: str) -> None:
    async with linked(redis_url) as link:
        with pytest.raises(ReplyError, match="unknown command"):
            await link.execute("NOSUCHCOMMAND")
        refused, fine = await link.pipeline([("INCR", "a", "b", "c"), ("PING",)])
        assert isinstance(refused, ReplyError)
        assert fine == b"PONG"


async def test_what_cannot_be_sent_leaves_no_gap(redis_url: str) -> None:
    async with linked(redis_url) as link:
        unsendable: list[tuple[Any, ...]] = [("ECHO", "\udcff"), ("ECHO", None)]
        for command in unsendable:
            with pytest.raises((UnicodeEncodeError, TypeError)):
                await link.execute(*command)
            with pytest.raises((UnicodeEncodeError, TypeError)):
                await link.pipeline([("ECHO", "first"), command])
        assert await asyncio.gather(*(link.execute("ECHO", n) for n in range(3))) == [b"0", b"1", b"2"]


async def test_replies_may_come_byte_by_byte(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, linked(proxy.url) as link:
        proxy.slice_size = 1
        echoes = await asyncio.gather(*(link.execute("ECHO", f"text {n}\r\n") for n in range(20)))
        assert echoes == [f"text {n}\r\n".encode() for n in range(20)]


async def test_a_frozen_server_is_noticed_within_the_timeout(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, linked(proxy.url, timeout=0.5) as link:
        await link.execute("PING")
        await asyncio.sleep(0.1)  # the watch runs already, and must count from the last sign of life
        await link.execute("PING")
        proxy.freeze()
        with Stopwatch() as watch, pytest.raises(Unavailable, match=r"no answer for 0\.5 s"):
            await link.execute("PING")
        assert watch.passed > 0.45
        assert watch.seconds < 0.9


async def test_a_stopped_process_is_noticed_and_its_return_too(own_redis: OwnRedis) -> None:
    server = own_redis()
    async with linked(server.url, timeout=0.3) as link:
        await link.execute("PING")
        server.pause()
        for _ in range(2):  # the second meets a kernel that still takes connections
            with Stopwatch() as watch, pytest.raises(Unavailable):
                await link.execute("PING")
            assert watch.seconds < CONNECT_TIMEOUT + 0.5
        server.resume()
        assert await eventually(lambda: answers(link)) == b"PONG"


async def test_a_slow_reply_among_others_is_waited_for(redis_url: str) -> None:
    async with linked(redis_url, timeout=0.8) as link:
        await link.execute("PING")
        await asyncio.sleep(0.4)
        assert await link.execute("BLPOP", "nothing", 0.5) is None
        await asyncio.sleep(0.9)
        assert await link.execute("PING") == b"PONG", "an idle connection is not given up"


async def test_a_dead_server_is_noticed_quickly_by_all_callers(redis_url: str) -> None:
    async with linked(f"redis://127.0.0.1:{free_port()}") as link:
        with Stopwatch() as watch:
            failures = await asyncio.gather(*(link.execute("PING") for _ in range(500)), return_exceptions=True)
        assert watch.seconds < 2
        assert {type(failure) for failure in failures} == {Unavailable}


async def test_a_cut_connection_fails_its_callers_and_is_replaced(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, linked(proxy.url) as link:
        waiting = [asyncio.create_task(link.execute("BLPOP", "nothing", 0)) for _ in range(3)]
        await until(lambda: link.epoch == 1)
        proxy.cut()
        failures = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(failure) for failure in failures} == {Unavailable}
        assert await link.execute("PING") == b"PONG"
        assert (link.epoch, proxy.connections) == (2, 2)


async def test_what_the_connection_before_has_sent_is_not_executed_later(any_redis_url: str) -> None:
    """Out of the socket of a server that was frozen, or a network that was slow: behind the back of who repeats it."""
    async with Proxy(any_redis_url) as proxy:
        link, other = Link(proxy.url, timeout=0.3, name="test"), Link(any_redis_url, timeout=5, name="other")
        await link.execute("PING")
        proxy.hold()
        with pytest.raises(Unavailable):
            await link.execute("XADD", "late", "*", "field", "value")
        await link.execute("PING")
        await proxy.let_go()
        stored = await other.execute("XLEN", "late")
        await link.close()
        await other.close()
        assert stored == 0


async def test_many_callers_share_one_attempt_to_connect(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, linked(proxy.url) as link:
        await asyncio.gather(*(link.execute("PING") for _ in range(100)))
        assert proxy.connections == 1


async def test_a_cancelled_caller_does_not_take_the_attempt_from_the_others(redis_url: str) -> None:
    async with linked(redis_url) as link:
        first, second = (asyncio.create_task(link.execute("PING")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == b"PONG"


@pytest.mark.parametrize("login", ["", ":wrong@", "nobody:wrong@"])
async def test_a_wrong_password_is_a_configuration_error(own_redis: OwnRedis, login: str) -> None:
    server = own_redis()
    async with linked(f"redis://{login}127.0.0.1:{server.port}") as link:
        with pytest.raises(ConfigurationError, match="refused the login") as caught:
            await link.execute("PING")
        assert "wrong" not in str(caught.value)


async def test_a_database_that_the_server_does_not_have_is_named(any_redis_url: str) -> None:
    async with linked(urlsplit(any_redis_url)._replace(path="/999999").geturl()) as link:
        with pytest.raises(ConfigurationError, match="999999 has no such database"):
            await link.execute("PING")


async def test_a_server_without_a_free_connection_is_unavailable(own_redis: OwnRedis) -> None:
    server = own_redis(options={"maxclients": "2"})
    async with linked(server.url) as first, linked(server.url) as second, linked(server.url) as third:
        await first.execute("PING")
        await second.execute("PING")
        with pytest.raises(Unavailable, match="max number of clients"):
            await third.execute("PING")
        await first.close()
        assert await eventually(lambda: answers(third)) == b"PONG"


async def test_all_of_a_greeting_is_sent_before_the_first_answer() -> None:
    """On a slow network, a round trip for each command would take longer than connecting may take, every time."""
    heard = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = b""
        while more := await reader.read(1000):
            said += more
            if all(word in said for word in (b"AUTH", b"SELECT", b"SETNAME", b"INFO")):
                heard.set()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    link = Link(f"redis://:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/3", timeout=1.0, name="test")
    connecting, hearing = asyncio.create_task(link.ready()), asyncio.create_task(heard.wait())
    await asyncio.wait({connecting, hearing}, return_when=asyncio.FIRST_COMPLETED)
    assert heard.is_set()
    await link.close()
    with pytest.raises(Unavailable):
        await connecting
    server.close()
    await server.wait_closed()


async def test_something_else_that_listens_there_is_unavailable() -> None:
    async def speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(speak_http, "127.0.0.1", 0)
    async with linked(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as link:
        with pytest.raises(Unavailable, match="does not speak"):
            await link.execute("PING")
    server.close()


async def test_a_full_server_says_so(own_redis: OwnRedis) -> None:
    server = own_redis(options={"maxmemory": "1mb"})
    async with linked(server.url) as link:
        with pytest.raises(Full, match="maxmemory"):
            await link.execute("SET", "key", "value")
        assert await link.execute("GET", "key") is None


async def test_going_and_coming_back_is_one_line_each(own_redis: OwnRedis) -> None:
    server = own_redis()
    async with linked(server.url) as link:
        with capture_logs() as lines:
            await link.execute("PING")
            server.kill()
            for _ in range(3):
                await asyncio.gather(*(link.execute("PING") for _ in range(20)), return_exceptions=True)
            server.start()
            await eventually(lambda: answers(link))
            await asyncio.gather(*(link.execute("PING") for _ in range(20)))
    assert [line["event"] for line in lines] == ["redis is away", "redis is back"]
    assert server.password not in str(lines)


async def test_the_database_of_the_url_is_selected(redis_url: str) -> None:
    async with linked(redis_url) as link, linked(redis_url.rpartition("/")[0] + "/9") as other:
        await other.execute("SET", "where", "nine", "PX", 60_000)
        assert await link.execute("GET", "where") is None
        await other.execute("DEL", "where")


async def test_a_unix_socket_will_do(own_redis: OwnRedis, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("socket") / "redis.sock"
    server = own_redis(options={"unixsocket": str(path)})
    async with linked(f"unix://:{server.password}@{path}") as link:
        assert await link.execute("PING") == b"PONG"
        assert not link._known_as, "an address that all clients share would end another's connection after a restart"


async def test_what_is_no_url_is_a_configuration_error() -> None:
    for url in ("http://localhost", "redis://localhost:port", "localhost", "redis://[::1"):
        with pytest.raises(ConfigurationError, match="is not a Redis URL"):
            Link(url, timeout=1, name="test")


async def test_a_closed_link_stays_closed(redis_url: str) -> None:
    link = Link(redis_url, timeout=5, name="test")
    connecting = asyncio.create_task(link.execute("PING"))
    await asyncio.sleep(0)
    await link.close()
    with pytest.raises(Unavailable):
        await connecting
    with pytest.raises(Unavailable, match="closed"):
        await link.execute("PING")
    assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}


async def answers(link: Link) -> object:
    try:
        return await link.execute("PING")
    except Unavailable:
        return None


async def test_a_quiet_connection_is_not_forgotten_by_what_lies_between(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall or a balancer drops what comes on a connection that was silent, and tells nobody."""

    async def quiet_for(memory: float) -> None:
        monkeypatch.setattr("eventbus.redis.link.IDLE", memory / 4)
        async with Proxy(redis_url) as proxy, linked(proxy.url, timeout=PATIENCE) as link:
            await link.ready()
            proxy.memory = memory
            await asyncio.sleep(2 * memory)
            async with asyncio.timeout(memory):
                assert await link.execute("PING") == b"PONG"
            assert proxy.connections == 1

    await in_a_span(quiet_for)
