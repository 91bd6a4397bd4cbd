"""Messages to agents: from a channel to a workflow, and the answer back to the channel."""
