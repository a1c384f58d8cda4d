"""What `dev` is made of: what changed, a container that compiles, a server that reloads, and what came of it."""
