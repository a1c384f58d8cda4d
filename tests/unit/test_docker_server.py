from __future__ import annotations

import docker.errors
import pytest

from builder.docker.server import ContainerServer, listed_plugins

PLUGIN = "/models/libcustomcopy.so"


@pytest.mark.parametrize(
    ("entrypoint", "command", "plugins"),
    [
        (["/entrypoint.sh"], ["tritonserver", f"--backend-config=dali,plugin_libs={PLUGIN}"], (PLUGIN,)),
        (None, ["tritonserver", "--backend-config=dali,plugin_libs=/a.so:/b.so", "--x"], ("/a.so", "/b.so")),
        (["tritonserver", "--backend-config", "dali,plugin_libs=/a.so"], None, ("/a.so",)),
        (None, ["tritonserver", "--backend-config=dali,plugin_libs=/a.so:"], ("/a.so",)),
        (None, ["tritonserver", "--backend-config=python,plugin_libs=/a.so"], ()),
        (None, None, ()),
        # The server takes the last one.
        (None, [f"--backend-config=dali,plugin_libs={path}" for path in ("/a.so", "/b.so")], ("/b.so",)),
    ],
)
def test_plugins_are_those_of_the_image_s_command(
    entrypoint: list[str] | None, command: list[str] | None, plugins: tuple[str, ...]
) -> None:
    assert listed_plugins({"Config": {"Entrypoint": entrypoint, "Cmd": command}}) == plugins


def test_the_whole_log_is_what_the_container_wrote_and_nothing_where_it_is_gone() -> None:
    class Container:
        def logs(self) -> bytes:
            return b"one\ntwo\n"

    class Gone:
        def logs(self) -> bytes:
            raise docker.errors.NotFound("no such container")

    here, gone = (ContainerServer(each) for each in (Container(), Gone()))  # type: ignore[arg-type]
    assert (here.whole_log(), gone.whole_log()) == (b"one\ntwo\n", b"")
