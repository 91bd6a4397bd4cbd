"""The application's front door: REST and WebSocket on aiohttp. It calls services, and knows no handler."""
