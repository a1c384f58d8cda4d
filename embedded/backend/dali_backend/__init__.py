"""What the backend `dali` is made of; only `pipeline` and `plugins` need DALI, nothing here needs Triton."""
