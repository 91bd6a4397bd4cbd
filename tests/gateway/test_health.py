"""/livez and /readyz. What they say while a server is away: see test_outages."""

from tests.gateway.client import Gateway


async def test_alive_and_ready_without_a_token(gateway: Gateway) -> None:
    nobody = gateway.bearer("")
    live = await nobody.get("/livez")
    assert (live.status, live.body) == (200, {"status": "alive"})
    ready = await nobody.get("/readyz")
    assert (ready.status, ready.body) == (200, {"status": "ready", "checks": {"redis": "ok", "postgres": "ok"}})
    assert (await nobody.send("HEAD", "/readyz")).status == 200
