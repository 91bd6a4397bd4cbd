"""Events as requests bring them and ask about them: CloudEvents, bodies of sessions, status of an event, its trace."""
