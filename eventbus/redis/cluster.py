"""The nodes of a cluster: a link to each primary, and the map of who has what, kept up to date."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress

from redis.crc import key_slot
from redis.exceptions import AuthenticationError, RedisError

from eventbus.errors import ConfigurationError, EventBusError, Unavailable
from eventbus.process.safe_logging import get_logger
from eventbus.process.supervision import Background
from eventbus.redis.address import Address, Place
from eventbus.redis.cluster_map import ClusterMap, View, read_view
from eventbus.redis.link import Link
from eventbus.redis.links import Argument, Command, Redirected, Reply, ReplyError
from eventbus.redis.polling import ask, briefly

ASKED = 5  # nodes at a time, at the most
ENOUGH = 3  # nodes
CHECK_EVERY = 2.0  # seconds between looks, should nobody have run into a change
CHECK_SILENT = 0.3  # seconds, while one of those asked does not answer: it may be replaced any moment
SOONEST = 0.1  # seconds between looks
KEYS = 65_536  # whose links are remembered
_QUESTIONS: tuple[Command, ...] = (("CLUSTER", "NODES"), ("CLUSTER", "SLOTS"))

Make = Callable[[Address, Callable[[], None]], Link]

log = get_logger("eventbus.redis")


class Cluster:
    """seeds: those to ask first. make: makes a link to a node; `away` is called when it is lost.

    name    what messages call it
    by_key  links that were asked for, by key"""

    def __init__(self, name: str, seeds: Sequence[Address], make: Make) -> None:
        self.name = name
        self.map = ClusterMap()
        self._seeds = seeds
        self._make = make
        self._links: dict[Place, Link] = {}
        self.by_key: dict[Argument | None, Link] = {}
        self._places: frozenset[Place] = frozenset()  # of the primaries, without what `correct` was told since
        self._unsure = asyncio.Event()
        self._unheard = False  # whether one of those asked last did not answer
        self._learning: asyncio.Task[None] | None = None
        self._closing = Background("links")
        self._closed = False

    # Who has what -----------------------------------------------------------------------------------------------------

    def link_of(self, key: str) -> Link:
        """To the node that has this key, as far as is known; else to any."""
        link = self.by_key.get(key)
        if link is None:
            place = self.place_of(key)
            link = self.any() if place is None else self.link_at(place)
            if len(self.by_key) >= KEYS:
                self.by_key.clear()
            self.by_key[key] = link
        return link

    def place_of(self, key: str) -> Place | None:
        """Where the node is that has this key; None if nobody is known to."""
        return self.map.owner(key_slot(key.encode(errors="surrogatepass")))

    def address_at(self, place: Place) -> Address:
        """With login and options."""
        return next((seed for seed in self._seeds if seed.place == place), None) or self._seeds[0].beside(place)

    def link_at(self, place: Place) -> Link:
        """To this node."""
        link = self._links.get(place)
        if link is None:
            link = self._links[place] = self._make(self.address_at(place), self.doubt)
        return link

    def any(self) -> Link:
        """To a primary, one that is connected if there is one."""
        return self.link_at(self.stay(None))

    def stay(self, place: Place | None) -> Place:
        """This place, if it is a primary's; else another: of a link that is connected if there is one, and else of one
        that nobody holds for dead."""
        if place is not None and place in self.map.places:
            return place
        places = sorted(self.map.places) or [self._seeds[0].place]
        connected = [each for each in places if each in self._links and self._links[each].connected]
        failing = {node.place for node in self.map.nodes if node.failing}
        return (connected or [each for each in places if each not in failing] or places)[0]

    def primaries(self) -> list[Link]:
        """To each that has slots."""
        return [self.link_at(place) for place in sorted(self.map.places)]

    # Learning ---------------------------------------------------------------------------------------------------------

    def correct(self, told: Redirected) -> None:
        """A node has said where a slot is now."""
        if not told.asking:
            self.map.correct(told.slot, told.place)
            self.by_key.clear()
            self.doubt()

    def doubt(self) -> None:
        """Somebody was not where he should be: look soon."""
        self._unsure.set()

    async def learn(self) -> None:
        """Ask the nodes; all who want to know wait for the same answers. Raises Unavailable if none answers,
        ConfigurationError if they are no cluster."""
        if self._closed:
            raise Unavailable(self.name, "its connections are closed")
        if self._learning is None or self._learning.done():
            self._learning = asyncio.create_task(self._learn(), name="learn cluster")
            self._learning.add_done_callback(_look_at)
        learning, task = self._learning, asyncio.current_task()
        try:
            await asyncio.shield(learning)
        except asyncio.CancelledError:
            if learning.cancelled() and not (task is not None and task.cancelling()):  # by `close`, or the loop's end
                raise Unavailable(self.name, "learning of it was cut short") from None
            raise

    async def _learn(self) -> None:
        places = self._some()
        views, errors = await ask([self._ask(place) for place in places])
        self._unheard = len(views) < len(places)
        if not any(map(_tells_of_slots, views)):  # whoever is left
            others = [node.place for node in self.map.nodes] + [seed.place for seed in self._seeds]
            left = [place for place in dict.fromkeys(others) if place not in places]
            more_views, more = await ask([self._ask(place) for place in left])
            views, errors = views + more_views, errors + more
        if not views:
            for error in errors:
                if isinstance(error, ConfigurationError) and not self.map.nodes:  # else it was right once
                    raise error
            raise Unavailable(self.name, "; ".join(dict.fromkeys(map(str, errors))) or "no node is known")
        self._take(views)

    def _some(self) -> list[Place]:
        """Those that are connected anyway, and others only where these are too few to be believed: last of all those
        that are held for dead, since it may be that who says so is the one that was cut off."""
        failing = {node.place: node.failing for node in self.map.nodes}
        known = list(failing)
        random.shuffle(known)
        connected = [place for place in known if place in self._links and self._links[place].connected]
        others = sorted((place for place in known if place not in connected), key=failing.__getitem__)
        return (connected + others[: max(0, ENOUGH - len(connected))])[:ASKED]

    def _take(self, views: Sequence[View]) -> None:
        before, places = self.map.changes, self._places
        self.map.take(views, asyncio.get_running_loop().time())
        now = self._places = self.map.places
        if self.map.changes == before and now == places:
            return
        self.by_key.clear()
        if places and now != places:
            told = {"come": _shown(now - places), "gone": _shown(places - now)}
            log.warning("the primaries of the cluster have changed", **told)
        for place in self._links.keys() - now:
            self._closing.start(self._links.pop(place).close(), f"close {place.host}:{place.port}")

    async def _ask(self, place: Place) -> View:
        """Over a connection that is there, if there is one. Raises RedisError, OSError, Unavailable, or
        ConfigurationError."""
        link = self._links.get(place)
        if link is not None and link.connected:
            return _view(await link.pipeline(list(_QUESTIONS)), place)
        async with briefly(self.address_at(place)) as client:
            pipeline = client.pipeline(transaction=False)
            for question in _QUESTIONS:
                pipeline.execute_command(*question)
            try:
                replies = await pipeline.execute(raise_on_error=False)
            except AuthenticationError as error:
                raise ConfigurationError(f"{place.host}:{place.port} refused the login: {error}") from None
            return _view(replies, place)

    async def watch(self, moved: Callable[[], None]) -> None:
        """For ever: calls `moved` when something is where it was not before."""
        seen = self.map.changes
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SILENT if self._unheard else CHECK_EVERY):
                    await self._unsure.wait()
            self._unsure.clear()
            with suppress(EventBusError):  # whoever connects is told
                await self.learn()
            if self.map.changes != seen:
                seen = self.map.changes
                moved()
            await asyncio.sleep(SOONEST)

    async def close(self) -> None:
        self._closed = True
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.wait([self._learning])
        await asyncio.gather(*(link.close() for link in self._links.values()), *self._closing.tasks)


def _view(replies: Sequence[Reply], place: Place) -> View:
    """Raises ConfigurationError if this is no node of a cluster, or does not tell this login."""
    for reply in replies:
        if isinstance(reply, (ReplyError, RedisError)):
            where = f"{place.host}:{place.port}"
            if "cluster support disabled" in str(reply):
                raise ConfigurationError(f"{where} is no node of a cluster: name it by redis://{where}")
            raise ConfigurationError(f"{where} does not tell of its cluster: {reply}")
    nodes, slots = replies
    return read_view(nodes, slots, place)


def _tells_of_slots(view: View) -> bool:
    """Else it is of a node that has no part in the cluster any more, and knows nobody."""
    return any(node.ranges for node in view)


def _shown(places: frozenset[Place]) -> str:
    return ", ".join(f"{place.host}:{place.port}" for place in sorted(places)) or "none"


def _look_at(task: asyncio.Task[None]) -> None:
    """All who wait for it may be gone: keep asyncio from reporting its exception."""
    if not task.cancelled():
        task.exception()
