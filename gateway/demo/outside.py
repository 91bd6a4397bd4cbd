"""Stand-ins for the services outside that nobody has configured: real HTTP and SMTP servers on the loopback.

Each answers as the real one would, and says what reached it. The workflow fails once, on purpose.
"""

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
from aiohttp import web
from aiosmtpd.handlers import AsyncMessage
from aiosmtpd.smtp import SMTP

from handlers.partners.services import Services

HOST = "127.0.0.1"
RETRY_AFTER = 1  # seconds that the workflow asks for when it fails
TELEGRAM, TWILIO, WHATSAPP = "/telegram", "/twilio", "/whatsapp"


class Outside:
    """What the stand-ins have taken. `is_workflow`, `is_mail`: whether there is one for the workflow, for mail."""

    def __init__(self, configured: Services) -> None:
        self.is_workflow = not configured.n8n_base_url
        self.is_mail = not configured.smtp_url
        self._taken: dict[str, asyncio.Queue[str]] = {}
        self._failed_once = False

    async def taken(self, service: str, within: float) -> str:
        """What the service took next. Raises TimeoutError after `within` seconds."""
        async with asyncio.timeout(within):
            return await self._queue(service).get()

    def take(self, service: str, what: str) -> None:
        self._queue(service).put_nowait(what)

    def _queue(self, service: str) -> asyncio.Queue[str]:
        return self._taken.setdefault(service, asyncio.Queue())

    # What answers -----------------------------------------------------------------------------------------------------

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/webhook/{workflow}", self._work)
        app.router.add_post("/enrich", self._enrich)
        app.router.add_post("/crm", self._synchronize)
        app.router.add_post(WHATSAPP + "/{number}/messages", self._send)
        app.router.add_post(TELEGRAM + "/{bot}/sendMessage", self._send)
        app.router.add_post(TWILIO + "/2010-04-01/Accounts/{account}/Messages.json", self._send)
        return app

    async def _work(self, request: web.Request) -> web.Response:
        """As a workflow of N8N behind a webhook."""
        asked = orjson.loads(await request.read())
        if not self._failed_once:
            self._failed_once = True
            self.take("workflow", "503, on purpose")
            return web.Response(status=503, headers={"Retry-After": str(RETRY_AFTER)}, text="on purpose")
        self.take("workflow", "200")
        said = f"You said: {asked['message']}"
        return _json({"message": said, "model": "stand-in", "tokensUsed": 7, "finishReason": "stop"})

    async def _enrich(self, request: web.Request) -> web.Response:
        await request.read()
        self.take("enrichment", "200")
        return _json({"industry": "Defence", "employees": 300_000})

    async def _synchronize(self, request: web.Request) -> web.Response:
        await request.read()
        self.take("crm", "200")
        return _json({})

    async def _send(self, request: web.Request) -> web.Response:
        await request.read()
        self.take("channel", request.path.split("/")[1])
        return _json({"ok": True, "sid": "SM1", "messages": [{"id": "wamid.1"}], "result": {"message_id": 1}})


class _Mailbox(AsyncMessage):
    """Takes every mail."""

    def __init__(self, outside: Outside) -> None:
        super().__init__()
        self._outside = outside

    async def handle_message(self, message: Any) -> None:
        parsed = email.message_from_bytes(message.as_bytes(), policy=email.policy.default)
        self._outside.take("mail", f"to {parsed['To']}: {parsed['Subject']}")


@asynccontextmanager
async def outside(configured: Services) -> AsyncIterator[tuple[Outside, Services]]:
    """Stand-ins for what is not configured, and settings that name them."""
    async with AsyncExitStack() as stack:
        there = Outside(configured)
        url = await _serve_http(there, stack)
        smtp = await _serve_smtp(there, stack)
        found = {
            "n8n_base_url": url,
            "smtp_url": smtp,
            "email_from": "demo@example.com",
            "enrichment_url": f"{url}/enrich",
            "crm_sync_url": f"{url}/crm",
            "whatsapp_phone_number_id": "1",
            "whatsapp_access_token": "demo",
            "telegram_bot_token": "demo",
            "sms_account_sid": "AC1",
            "sms_auth_token": "demo",
            "sms_from": "+12025550100",
        }
        bases = {
            "whatsapp_access_token": ("whatsapp_base_url", url + WHATSAPP),
            "telegram_bot_token": ("telegram_base_url", url + TELEGRAM),
            "sms_auth_token": ("sms_base_url", url + TWILIO),
        }
        missing = {name: value for name, value in found.items() if not getattr(configured, name)}
        # A stand-in's login must never go to the real service.
        missing |= dict(base for name, base in bases.items() if name in missing)
        yield there, configured.model_copy(update=missing)


async def _serve_http(there: Outside, stack: AsyncExitStack) -> str:
    runner = web.AppRunner(there.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, HOST, 0).start()
    return f"http://{HOST}:{runner.addresses[0][1]}"


async def _serve_smtp(there: Outside, stack: AsyncExitStack) -> str:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(_Mailbox(there), enable_SMTPUTF8=True, loop=loop), HOST, 0)
    stack.push_async_callback(server.wait_closed)
    stack.callback(server.close)
    return f"smtp://{HOST}:{server.sockets[0].getsockname()[1]}"


def _json(content: object) -> web.Response:
    return web.Response(body=orjson.dumps(content), content_type="application/json")
