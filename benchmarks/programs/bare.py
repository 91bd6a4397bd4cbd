"""The limit of the gateway: aiohttp with nothing around it. `python -m benchmarks.programs.bare` prints its port.

A POST is read, parsed and answered with 202 and a little JSON: no token, no validation, nothing stored, no log.
"""

import asyncio

import orjson
from aiohttp import web

from eventbus.process.loop import collect_seldom, run
from gateway.endpoints.dispatch import MAX_BODY
from gateway.serve import make_runner

EVENTS, MESSAGES = "/api/events", "/api/messages"
_ANSWER = {"eventId": "01a20176-0000-7000-8000-000000000001", "status": "stored"}


async def take(request: web.Request) -> web.Response:
    orjson.loads(await request.read())
    return web.Response(status=202, body=orjson.dumps(_ANSWER), content_type="application/json")


async def main() -> None:
    app = web.Application(client_max_size=MAX_BODY)
    for path in (EVENTS, MESSAGES):
        app.router.add_post(path, take)
    runner = make_runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collect_seldom()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(main())
