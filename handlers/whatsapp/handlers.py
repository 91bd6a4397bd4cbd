"""Group `whatsapp-sync`: what was said on a WhatsApp account before it was connected becomes history here.

A page and the cursor of the next one commit together: after a crash the import resumes there. Nothing is added twice,
neither by a page that is read again nor for a message that came in by webhook meanwhile.
"""

from uuid import UUID

from eventbus import Backoff, Context, Group, Reject, RetryPolicy
from eventbus.contract.transaction import Row
from eventbus.process import crash_points
from handlers.channel import store as channels
from handlers.common.fields import known_id
from handlers.partners.calls import HTTP
from handlers.partners.services import SERVICES
from handlers.whatsapp import store
from handlers.whatsapp.events import ConnectionEstablished
from handlers.whatsapp.history import HistoryPage, fetch

whatsapp_sync = Group(
    "whatsapp-sync",
    retry=RetryPolicy(attempts=3, backoff=Backoff.exponential(2.0)),
    concurrency=1,
    timeout=None,  # a history may be long; each call has its own bound, and the lease is renewed meanwhile
)


@whatsapp_sync.on(ConnectionEstablished)
async def import_history(event: ConnectionEstablished, ctx: Context) -> None:
    """Import to the history's end, from where an earlier run stopped. A connection that is gone needs no history."""
    connection_id = known_id(event.connection_id)
    if connection_id is None:
        return
    while await _import_page(ctx, event.organization_id, connection_id):
        crash_points.point("import.committed")


async def _import_page(ctx: Context, organization: str, connection_id: UUID) -> bool:
    """Import one page; whether there is another one."""
    async with ctx.side_transaction() as tx:
        owner = await channels.find(tx.connection, organization, connection_id)
        if owner is None or owner["channel"] != "whatsapp":
            return False
        state = await store.begin(tx.connection, organization, connection_id)
    assert state is not None, "INSERT … RETURNING"
    if state["finished_at"] is not None:
        return False
    cursor: str | None = state["cursor"]
    page = await fetch(await ctx.use(HTTP), await ctx.use(SERVICES), owner["account"], cursor)
    if page.after == cursor and cursor is not None:
        raise Reject(f"WhatsApp's history does not end: behind page {state['pages']} comes the same one")
    await _apply(ctx, organization, owner, cursor, page)
    return page.after is not None


async def _apply(ctx: Context, organization: str, owner: Row, cursor: str | None, page: HistoryPage) -> None:
    """Only messages from before the account was connected are written: later ones come by webhook."""
    before = [past for past in page.messages if past.at < owner["created_at"]]
    async with ctx.side_transaction() as tx:
        if await store.advance(tx.connection, organization, owner["id"], cursor, page.after):
            await store.insert(tx.connection, organization, owner, before)
