#!/bin/sh
# Stands where NVIDIA's images have their entrypoint; here there is nothing to prepare.
exec "$@"
