"""A bus' parts: groups, events, dead letters, and how it opens and closes; what operators and commands ask for:
controls, aborts, replays, states, schemas, descriptions."""
