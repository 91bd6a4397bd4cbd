"""What an operator or a command asks for: controls, aborts, replays, states, schemas, descriptions."""
