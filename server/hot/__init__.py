"""The hot face: gRPC and HTTP on one port, through one ASGI application on pyvoy."""
