"""What users name and we connect to: only the public internet, whatever the spelling and whatever names say."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from eventbus import Reject
from handlers.delivery import guard
from handlers.delivery.guard import LONGEST, Allowed, check_callback_url, guarded, refusal
from handlers.partners.calls import Unreachable
from tests.unit.handlers.partners.test_calls import answering, serving

INSIDE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("100.64.0.1", "169.254.169.254", "169.254.0.1", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.1", "192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("168.63.129.16", "100.100.100.200"),
    *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:7f00:1", "fe80::1", "fe80::1%eth0"),
    *("fec0::1", "fc00::1", "fd00::1", "fd00:ec2::254", "ff02::1", "64:ff9b::7f00:1", "64:ff9b::808:808"),
    *("64:ff9b:1::7f00:1", "2002:7f00:1::1", "2002:808:808::1", "2001::1", "2001:0:7f00:1::", "2001:db8::1"),
    *("2001:10::1", "3fff::1", "100::1", "5f00::1", "2606:4700::1%eth0"),
]
OUTSIDE = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "9.255.255.255", "2606:4700::1111", "2a00:1450:4001::1"]


@pytest.mark.parametrize("address", INSIDE)
def test_no_address_of_the_public_internet(address: str) -> None:
    assert refusal(address) == f"{address} is no address of the public internet"


@pytest.mark.parametrize("address", OUTSIDE)
def test_addresses_of_the_public_internet(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "1.2.3.4.5", "0x7f000001", "8.8.8.8 "])
def test_what_is_no_numeric_address_is_refused_where_a_socket_is_made(text: str) -> None:
    assert refusal(text) == f"{text} is no address"


GOOD = [
    *(
        "https://example.com",
        "http://example.com:8080/hook?a=1&b=%20#x",
        "https://xn--bcher-kva.example/",
        "https://a.b.",
    ),
    *("https://8.8.8.8/x", "https://[2606:4700::1111]:8443/", "http://example.com:80", "https://example.com:443/@x"),
    *("HTTPS://EXAMPLE.COM/", "https://127.0.0.1.example.com/", "https://localhost.example.com/", "http://cafe/"),
]


@pytest.mark.parametrize("url", GOOD)
def test_urls_that_may_be_called(url: str) -> None:
    check_callback_url(url, "")


BAD_FORM = [
    *("", "example.com", "//example.com", "/hook", "ftp://example.com", "file:///etc/passwd", "gopher://example.com"),
    *("javascript:alert(1)", "http://", "http:///hook", "http://:80/", "http://example.com:99999/", "http://[::1"),
    *("http://user@example.com", "http://user:password@example.com", "http://:password@example.com", "https://a b/"),
    *(
        "http://example.com\r\nX: y",
        "http://example.com\t",
        "http://example.com\x00",
        "http://exämple.com/",
        "http://a\\b",
    ),
    *("http://\uff11\uff12\uff17.0.0.1/", "http://" + "a" * LONGEST),
]


@pytest.mark.parametrize("url", BAD_FORM)
def test_no_urls(url: str) -> None:
    with pytest.raises(ValueError, match=r"must|is no URL"):
        check_callback_url(url, "")
    with pytest.raises(ValueError, match=r"must|is no URL"):
        check_callback_url(url, "example.com,localhost,user,127.0.0.1")


SPELLINGS = [
    *(
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
    ),
    *("0", "0.0.0.0", "00.0.0.0", "[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]"),
    *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "169.254.169.254", "0xa9fea9fe", "2852039166", "[fd00::1]", "[fe80::1]"),
    *("localhost", "LOCALHOST", "localhost.", "a.localhost", "printer.local", "localhost.localdomain"),
    *("metadata.google.internal", "host.docker.internal"),
]


@pytest.mark.parametrize("host", SPELLINGS)
def test_hosts_that_are_plainly_inside(host: str) -> None:
    with pytest.raises(ValueError, match=r"no address of the public internet|a name of this host"):
        check_callback_url(f"http://{host}/", "")


@pytest.mark.parametrize("port", [0, 1, 22, 25, 79, 81, 445, 1023])
def test_ports_of_other_services(port: int) -> None:
    with pytest.raises(ValueError, match=f"port {port} is none of a web server's"):
        check_callback_url(f"http://example.com:{port}/", "")


def test_what_is_let_through() -> None:
    check_callback_url("http://localhost:9/", "localhost")
    check_callback_url("http://LOCALHOST.:9/", " localhost , other")
    check_callback_url("http://localhost:8081/", "localhost:8081")
    check_callback_url("http://[::1]:8081/", "[::1]:8081")
    check_callback_url("http://10.0.0.7/", "10.0.0.7")
    for url in ("http://localhost:8082/", "http://127.0.0.1:8081/", "http://a.localhost:8081/"):
        with pytest.raises(ValueError, match=r"is no|is a name"):
            check_callback_url(url, "localhost:8081")
    assert not Allowed("").lets("", 80)


def test_the_environment_says_what_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="this host"):
        check_callback_url("http://localhost:8081/")
    monkeypatch.setenv("EVENTBUS_CALLBACK_ALLOW", "localhost:8081")
    check_callback_url("http://localhost:8081/")


# Connecting -----------------------------------------------------------------------------------------------------------


class Names(AbstractResolver):
    """Names of the test's own; each lookup takes the next addresses, the last ones for ever."""

    def __init__(self, known: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._known = {name: list(answers) for name, answers in known.items()}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        answers = self._known[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


class Door(asyncio.Protocol):
    """Counts who comes in, and says nothing."""

    def __init__(self) -> None:
        self.visits = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.visits += 1
        transport.close()


@pytest.fixture
async def door() -> AsyncIterator[tuple[Door, int]]:
    door = Door()
    server = await asyncio.get_running_loop().create_server(lambda: door, "127.0.0.1", 0)
    yield door, server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def _post(url: str, *, allow: str = "", resolver: AbstractResolver | None = None) -> Any:
    async with guarded(allow, resolver) as client:
        return await client.post("the callback", url, b"{}", {}, timeout=2)


async def test_a_name_that_resolves_to_the_inside(door: tuple[Door, int]) -> None:
    visited, port = door
    for addresses in (["127.0.0.1"], ["::ffff:127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["::1", "127.0.0.1"]):
        with pytest.raises(Reject, match=r"refused to call: .* is no address of the public internet"):
            await _post(f"http://rebound.example:{port}/", resolver=Names({"rebound.example": [addresses]}))
    assert visited.visits == 0


async def test_a_name_that_resolves_to_something_else_the_second_time(door: tuple[Door, int]) -> None:
    """Each connection is looked at by its own address, and none is kept for the next call."""
    visited, port = door
    names = Names({"rebound.example": [["240.0.0.1"], ["127.0.0.1"]]})
    async with guarded("", names) as client:
        for address in ("240.0.0.1", "127.0.0.1", "127.0.0.1"):
            with pytest.raises(Reject, match=address):
                await client.post("the callback", f"http://rebound.example:{port}/", b"", {})
    assert visited.visits == 0


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_spelling_of_an_address_gets_to_a_socket(host: str, door: tuple[Door, int]) -> None:
    visited, port = door
    with pytest.raises(Reject):
        await _post(f"http://{host}:{port}/")
    assert visited.visits == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "0x7f.1", "127.1", "localhost"])
async def test_the_socket_is_refused_by_itself(
    host: str, door: tuple[Door, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the look at the URL may miss."""
    monkeypatch.setattr(guard, "_refusal_of_literal", lambda _host: None)
    monkeypatch.setattr(guard, "LOCAL_NAMES", re.compile("nothing"))
    visited, port = door
    with pytest.raises(Reject):
        await _post(f"http://{host}:{port}/")
    assert visited.visits == 0


async def test_a_name_whose_address_passes_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "refusal", {"127.0.0.1": None}.__getitem__)
    async with serving(answering(200, "fine")) as url:
        port = url.rpartition(":")[2]
        answer = await _post(f"http://public.example:{port}/", resolver=Names({"public.example": [["127.0.0.1"]]}))
    assert answer.body == b"fine"


async def test_a_name_that_nobody_knows_may_be_known_later() -> None:
    class Nobody(Names):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            raise OSError(f"{host}:{port} is not known, in {family}")

    with pytest.raises(Unreachable, match="is away: ClientConnectorDNSError"):
        await _post("http://nobody.example/", resolver=Nobody({}))


async def test_what_is_let_through_is_called_and_nothing_else() -> None:
    async with serving(answering(200, "fine")) as url:
        host = url.removeprefix("http://")
        answer = await _post(url, allow=host)
        assert (answer.status, answer.body) == (200, b"fine")
        port = host.rpartition(":")[2]
        async with guarded(host) as client:
            await client.post("the callback", url, b"", {})
            with pytest.raises(Reject):
                await client.post("the callback", f"http://localhost:{port}", b"", {})
            await client.post("the callback", url, b"", {})


async def test_a_redirect_is_not_followed(door: tuple[Door, int]) -> None:
    visited, port = door
    async with serving(answering(302, Location=f"http://127.0.0.1:{port}/")) as url:
        with pytest.raises(Reject, match="answered 302"):
            await _post(url, allow=url.removeprefix("http://"))
    assert visited.visits == 0


async def test_no_proxy_of_the_environment_is_used(door: tuple[Door, int], monkeypatch: pytest.MonkeyPatch) -> None:
    visited, port = door
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    async with serving(answering(200)) as url:
        assert (await _post(url, allow=url.removeprefix("http://"))).status == 200
    assert visited.visits == 0


@asynccontextmanager
async def _tarpit() -> AsyncIterator[str]:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"x")
            await asyncio.sleep(0.05)
        return response

    async with serving(drip) as url:
        yield url


async def test_time_is_bounded() -> None:
    async with _tarpit() as url, guarded(url.removeprefix("http://")) as client:
        with pytest.raises(Unreachable, match=r"has not answered within 0\.2 s"):
            await client.post("the callback", url, b"", {}, timeout=0.2)
