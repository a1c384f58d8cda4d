"""A server that stays, and loads what is asked of it: one process for as long as its plugins are the same."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from builder import triton
from builder.docker.engine import Engine
from builder.docker.server import ContainerServer, hardened
from builder.errors import InferenceFailed, ModelNotLoaded
from builder.project import MODELS
from builder.triton import Endpoint

USER = "1000:1000"
"""As in the image."""
_OWN_ARGUMENTS = ("--model-control-mode", "--load-model", "--repository-poll-secs")
_LOADS_AT_ONCE = 4


def command(image_command: Sequence[str]) -> list[str]:
    """How the image starts its server, but with no model until one is asked for."""
    return [*(each for each in image_command if not each.startswith(_OWN_ARGUMENTS)), "--model-control-mode=explicit"]


@dataclass
class LiveServer:
    """A server, and what it has loaded."""

    server: ContainerServer
    endpoint: Endpoint
    started_with: str
    """What no running server can take over."""
    timeout: float
    loaded: dict[str, str] = field(default_factory=dict)
    """The models that it serves, each with the digest of its files."""
    is_doubtful: bool = False
    """After a request that failed: an operator may have taken down more than it."""

    @property
    def is_usable(self) -> bool:
        return not self.is_doubtful and self.server.exited() is None

    def bring(self, models: Mapping[str, str], ensembles: Collection[str]) -> list[str]:
        """Loads what is new or has changed, and unloads what is gone; tells which were loaded.

        A model that does not load stays as it was before, and so do the others then.

        Args:
            models: each with the digest of its files.
            ensembles: those that need others.

        Raises:
            ModelNotLoaded: the server refuses one.
            ServerDied: it ended over it.
        """
        changed = [name for name, digest in models.items() if self.loaded.get(name) != digest]
        gone = [name for name in self.loaded if name not in models]
        with contextlib.closing(tritonclient.grpc.InferenceServerClient(self.endpoint.grpc)) as client:
            for name in sorted(gone, key=lambda each: each not in ensembles):
                with self._explained(name):
                    client.unload_model(name, client_timeout=self.timeout)
                del self.loaded[name]
            self._load(client, [name for name in changed if name not in ensembles], models)
            self._load(client, [name for name in changed if name in ensembles], models)
        return changed

    def _load(
        self, client: tritonclient.grpc.InferenceServerClient, names: Sequence[str], digests: Mapping[str, str]
    ) -> None:
        def one(name: str) -> None:
            with self._explained(name):
                client.load_model(name, client_timeout=self.timeout)
            self.loaded[name] = digests[name]

        pool = ThreadPoolExecutor(_LOADS_AT_ONCE)
        try:
            pending = [pool.submit(one, name) for name in names]
            failures = [error for each in pending if (error := each.exception())]
        finally:
            # Not waited for: a load that hangs ends with its server.
            pool.shutdown(wait=False, cancel_futures=True)
        if failures:
            raise failures[0]

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        before = len(self.server.whole_log())
        try:
            yield
        except (InferenceServerException, grpc.RpcError) as error:
            if (status := self.server.exited()) is not None:
                raise triton.died(self.server, status, f"model {name}", "while it loaded a model") from None
            lines = self.server.whole_log()[before:].decode(errors="replace").splitlines()
            meaning = triton.explain(lines)
            message = error.message() if isinstance(error, InferenceServerException) else str(error)
            raise ModelNotLoaded(
                f"model {name!r} does not load" + (f": {meaning.what}" if meaning else ""),
                where=f"model {name}",
                remedy=meaning.remedy if meaning else "see the server's message",
                detail=[*str(message).splitlines()[:5], *(meaning.evidence if meaning else ())],
            ) from None

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        """Around requests: one that fails may have been the server's last."""
        try:
            yield
        except InferenceFailed:
            self.is_doubtful = True
            if (status := self.server.exited()) is not None:
                raise triton.died(self.server, status, "the server", "while it was asked") from None
            raise


@contextlib.contextmanager
def serving(
    engine: Engine, image: str, models: Path, arguments: Sequence[str], started_with: str, *, gpus: str, timeout: float
) -> Iterator[LiveServer]:
    """A server of `models` from the image, as hardened as any, for the length of a `with`.

    Raises:
        ServerDied, NotReady: it does not come up.
    """
    engine.require_local()
    options = hardened(gpus) | {
        "command": list(arguments),
        "user": USER,
        "volumes": {str(models): {"bind": MODELS, "mode": "ro,z"}},
    }
    with engine.running(image, **options) as container:
        server = ContainerServer(container)
        endpoint = server.endpoint()
        triton.wait_until_ready(endpoint, server, timeout=timeout, where=image)
        yield LiveServer(server, endpoint, started_with, timeout)
