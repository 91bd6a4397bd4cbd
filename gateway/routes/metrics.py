"""/metrics: what this process counts, for Prometheus. No token: it is for the inside, as the health routes are."""

from importlib.util import find_spec

from aiohttp import web

from eventbus import EventBus


def mount(app: web.Application, bus: EventBus) -> None:
    """Nothing is at that path where prometheus-client is not installed: it is an extra."""
    if find_spec("prometheus_client") is None:
        return
    from eventbus.telemetry.prometheus import CONTENT_TYPE, render  # noqa: PLC0415 - see above

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=render(bus.metrics), headers={"Content-Type": CONTENT_TYPE})

    app.router.add_get("/metrics", metrics)
