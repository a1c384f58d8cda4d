"""An image's files in a folder, and its server as a process of this machine: for machines without a container engine."""
