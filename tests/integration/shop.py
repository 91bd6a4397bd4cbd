"""A service of somebody's own, as `eventbus worker --app` meets it: one module, nothing of the CRM, no database."""

import asyncio
import os
from pathlib import Path

from eventbus import Context, Event, Group

VERSION = 1


class OrderPlaced(Event, type="shop.order_placed"):
    number: int
    seconds: float = 0.0


billing = Group("billing", lease=1.0)
shipping = Group("shipping", lease=1.0)


@billing.on(OrderPlaced)
async def charge(event: OrderPlaced, ctx: Context) -> None:
    tell(f"begun {event.number}")
    await asyncio.sleep(event.seconds)
    tell(f"done {event.number} by {os.getpid()} version {VERSION}")


@shipping.on(OrderPlaced)
async def ship(event: OrderPlaced, ctx: Context) -> None:
    return


def tell(line: str) -> None:
    with Path(os.environ["SHOP_LOG"]).open("a", encoding="utf-8") as log:
        log.write(line + "\n")
