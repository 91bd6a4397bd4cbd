"""A worker process of six groups with nothing to do: `python -m benchmarks.programs.idle URL`."""

import sys

from eventbus import Context, Event, EventBus, Group, Worker
from eventbus.process.loop import run


class Lead(Event, type="lead.idle"):
    pass


class Task(Event, type="task.idle"):
    pass


class Notification(Event, type="notification.idle"):
    pass


class Email(Event, type="email.idle"):
    pass


class Message(Event, type="message.idle"):
    pass


# Six groups of the application, on the streams that they read.
GROUPS: dict[str, tuple[type[Event], ...]] = {
    "task-automation": (Lead, Task),
    "lead-automation": (Lead,),
    "lead": (Lead,),
    "email": (Email,),
    "notification": (Notification, Task),
    "message": (Message,),
}


async def main(url: str) -> None:
    groups: list[Group] = []
    for name, types in GROUPS.items():
        group = Group(name)

        @group.on(*types)
        async def handle(_event: Event, _ctx: Context) -> None:
            return

        groups.append(group)
    async with EventBus(url) as bus:
        await Worker(bus, groups).run()


if __name__ == "__main__":
    run(main(sys.argv[1]))
