"""Events as requests bring them and ask after them: CloudEvents, sessions' bodies, their status, their traces."""
