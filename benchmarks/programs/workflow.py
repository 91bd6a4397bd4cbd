"""A stand-in for N8N as a process: `python -m benchmarks.programs.workflow`. Prints its port, and answers each question
with the question's text after 20 ms, until it is ended."""

import asyncio

from aiohttp import web

from eventbus.process.loop import run

SECONDS = 0.02  # that a workflow takes


async def answer(request: web.Request) -> web.Response:
    question = await request.json()
    await asyncio.sleep(SECONDS)
    return web.json_response({"message": question["message"], "model": "none", "tokensUsed": 1, "finishReason": "stop"})


async def main() -> None:
    app = web.Application()
    app.router.add_post("/webhook/{workflow}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(main())
