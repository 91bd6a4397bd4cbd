"""/metrics: what this process counts, for Prometheus. No token: it is for the inside, as the health routes are."""

from importlib.util import find_spec

from aiohttp import web

from gateway.endpoints.api import Routes
from gateway.endpoints.dispatch import BUS
from gateway.http.traffic import TRAFFIC

metrics = Routes("/metrics", tag="health")

if find_spec("prometheus_client") is not None:  # it is an extra; without it there is nothing at this path
    from prometheus_client.exposition import generate_latest

    from eventbus.telemetry.prometheus import CONTENT_TYPE, render
    from gateway.http.exposition import registry_of

    @metrics.raw("GET", token=False, answers={200: {"text/plain": str}})
    async def get_metrics(request: web.Request) -> web.Response:
        """Metrics for Prometheus."""
        told = render(request.app[BUS].metrics) + generate_latest(registry_of(request.app[TRAFFIC]))
        return web.Response(body=told, headers={"Content-Type": CONTENT_TYPE})
