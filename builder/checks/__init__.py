"""What can be known to be wrong before anything is built, one module for each part of a project."""
