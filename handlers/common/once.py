"""Effects outside of PostgreSQL, once as far as that is possible: look the event up before, note it afterwards.

No connection is held while a slow service answers. An effect happens twice only if a process dies between the service's
answer and the note, or runs beside one that was thought dead: no transaction includes an outside service.

    if await is_done(ctx):
        return
    await call_the_service()
    await note_done(ctx)
"""

from eventbus import Conflict, Context, Unavailable

_NOTED = "SELECT true FROM eventbus_inbox WHERE event_id = $1::uuid AND group_name = $2"


async def is_done(ctx: Context) -> bool:
    """Whether this group has noted another delivery of this event. Raises Unavailable while PostgreSQL is away: a
    handler that cannot look must not act."""
    async with ctx.side_transaction() as tx:
        return await tx.connection.fetchval(_NOTED, ctx.event_id, ctx.group) is not None


async def note_done(ctx: Context) -> None:
    """Note the event in the inbox, where timelines find it. If that fails, it is only logged: the effect has happened,
    and a failure of the handler would repeat it."""
    try:
        async with ctx.transaction():
            pass
    except (Unavailable, Conflict) as error:
        ctx.log.warning("done, and not noted: another delivery of this event would do it again", reason=str(error))
