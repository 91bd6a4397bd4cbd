"""Where mails go in the demo while no SMTP server is configured."""

from email.headerregistry import Address
from email.message import EmailMessage

from eventbus import EventBus
from handlers.email.postbox import POSTBOX
from handlers.services import SERVICES


class DemoPostbox:
    """Takes every mail, and throws it away: the group is what the demo shows."""

    sender = Address("The demo", "demo", "example.com")

    async def send(self, message: EmailMessage, to: Address) -> None:
        pass


async def provide_postbox(bus: EventBus) -> None:
    """Unless there is a real one."""
    if not (await bus.use(SERVICES)).smtp_url:
        bus.provide(POSTBOX, DemoPostbox())
