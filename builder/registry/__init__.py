"""A registry, by the distribution protocol: manifests, blobs, resumable uploads and referrers."""

from builder.registry.client import Registry
from builder.registry.content import Descriptor, Manifest
from builder.registry.credentials import Credentials, credentials

__all__ = ["Credentials", "Descriptor", "Manifest", "Registry", "credentials"]
