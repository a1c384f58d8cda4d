"""Docker: the engine through its SDK, builds through buildx."""
