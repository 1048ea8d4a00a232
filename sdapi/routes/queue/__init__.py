"""The EAS queue over HTTP and WebSocket, and synchronous services under the same prefix."""
