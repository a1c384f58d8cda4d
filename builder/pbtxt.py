"""config.pbtxt, read with Triton's own message type: what Triton would read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builder.errors import BadConfig

PLUGIN_LIBS = "plugin_libs"
DALI = "dali"


def read(path: Path) -> Any:
    """The ModelConfig in a file.

    Raises:
        BadConfig: it is not one; the place has the line and column.
    """
    # Imported here: protobuf and gRPC take longer to load than most commands take to run.
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        place = f"{path}:{line}:{column}" if line else str(path)
        message = str(error).removeprefix(f"{line}:{column} : ")
        raise BadConfig(f"config.pbtxt cannot be read: {message}", where=place, remedy="mend that line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(
            f"config.pbtxt cannot be read: {error}", where=str(path), remedy="make it a UTF-8 text file"
        ) from None


def is_dali(config: Any) -> bool:
    """Whether NVIDIA's DALI backend, or ours, will serve the model."""
    return str(config.backend) == DALI


def plugin_libs(config: Any) -> tuple[str, ...]:
    """The libraries that a model says it needs, in its order."""
    if PLUGIN_LIBS not in config.parameters:
        return ()
    return tuple(path for path in str(config.parameters[PLUGIN_LIBS].string_value).split(":") if path)
