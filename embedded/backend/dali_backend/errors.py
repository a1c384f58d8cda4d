"""What can go wrong, seen from Triton: a model that cannot be loaded, a request that cannot be answered."""


class BackendError(Exception):
    """The model cannot serve; the message says what is wrong, where, and how to mend it."""


class ExecutionError(Exception):
    """A request, or all requests of one execution, cannot be answered; the model goes on serving."""
