"""What deployments read: manifests for Kubernetes and KServe, and compose's .env, each with the image by its digest."""
