"""The hot path: one ASGI application for gRPC and HTTP, and what makes a search cheap in it."""
