"""Things done outside of PostgreSQL, once as far as that is possible: looked up before, noted behind.

Nothing is held while a slow service answers. Only who dies between the service's answer and the note does it twice, or
who runs at the same time as a process that was thought dead: no transaction reaches as far as another house.

    if await is_done(ctx):
        return
    await call_the_service()
    await note_done(ctx)
"""

from eventbus import Conflict, Context, Unavailable

_NOTED = "SELECT true FROM eventbus_inbox WHERE event_id = $1::uuid AND group_name = $2"


async def is_done(ctx: Context) -> bool:
    """Whether another delivery of this event has been noted by this group. Raises Unavailable while PostgreSQL is away:
    who cannot look does not act."""
    async with ctx.side_transaction() as tx:
        return await tx.connection.fetchval(_NOTED, ctx.event_id, ctx.group) is not None


async def note_done(ctx: Context) -> None:
    """Write it into the inbox, where timelines find it. If that cannot be done, it was done all the same: failing for
    it would do it again."""
    try:
        async with ctx.transaction():
            pass
    except (Unavailable, Conflict) as error:
        ctx.log.warning("done, and not noted: another delivery of this event would do it again", reason=str(error))
