"""The WebSocket: who is connected, what is sent to whom, and what waits for those who are not."""
