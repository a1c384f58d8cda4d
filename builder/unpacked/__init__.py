"""An image's files in a folder, and its server as a process: for machines without a container engine."""
