"""An image's files in a folder: `FOLDER/rootfs`, and beside it in `FOLDER/image.json` what the image says of itself."""

from __future__ import annotations

import json
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import IO, Any, cast

from builder.docker.engine import Engine, translated
from builder.errors import MachineError, NoUnpackedImage

ROOTFS, DESCRIPTION = "rootfs", "image.json"


@dataclass(frozen=True)
class UnpackedImage:
    """An image without an engine."""

    folder: Path
    reference: str
    digest: str
    described: dict[str, Any]
    """As the engine described it; its `Config` is OCI's."""

    @property
    def root(self) -> Path:
        return self.folder / ROOTFS

    @property
    def command(self) -> list[str]:
        """What it starts."""
        config = self.described["Config"]
        return [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]

    @property
    def environment(self) -> dict[str, str]:
        pairs = (each.partition("=") for each in self.described["Config"].get("Env") or ())
        return {name: value for name, _, value in pairs}

    @property
    def user(self) -> str:
        """UID:GID, or empty for root and for names, which only the image's own files could explain."""
        user = str(self.described["Config"].get("User") or "")
        return user if user.replace(":", "").isdecimal() else ""

    @classmethod
    def read(cls, folder: Path) -> UnpackedImage:
        """The image that `unpack` left in a folder.

        Raises:
            NoUnpackedImage: it is none.
        """
        try:
            document = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            image = cls(folder.resolve(), document["reference"], document["digest"], document["described"])
            complete = image.root.is_dir() and bool(image.command)
        except (OSError, ValueError, KeyError, TypeError):
            complete = False
        if not complete:
            raise NoUnpackedImage(
                f"{folder} is no unpacked image",
                where=str(folder / DESCRIPTION),
                remedy="unpack one in a folder that is not there yet, on a machine with an engine: "
                "python -m builder smoke --local --folder NEW",
            )
        return image


def unpack(engine: Engine, digest: str, reference: str, folder: Path) -> UnpackedImage:
    """Puts the files of one of the engine's images into `folder`, in the place of an image that was there.

    Raises:
        NoImage, MachineError: the engine does not give it, or what was there cannot be removed.
    """
    described = engine.image(digest)
    root = _emptied(folder)
    with engine.created(digest) as container, translated(reference):
        stream = cast(IO[bytes], _Stream(cast(Iterator[bytes], container.export())))
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            # From Python 3.14 on the default refuses what images are full of: links to absolute paths, files that run
            # as their owner. The engine made this archive, of paths that a system of files has.
            archive.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
            archive.extractall(root)
    document = {"reference": reference, "digest": digest, "described": {"Config": described["Config"]}}
    (folder / DESCRIPTION).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")  # the last: it is whole
    return UnpackedImage.read(folder)


def _emptied(folder: Path) -> Path:
    """Where the files go: without those of an earlier image, which may be another user's."""
    root = folder / ROOTFS
    try:
        (folder / DESCRIPTION).unlink(missing_ok=True)  # the first: what is left is no image
        if root.exists():
            shutil.rmtree(root)
        root.mkdir(parents=True)
    except OSError as error:
        raise MachineError(
            f"an image cannot be unpacked into {folder}: {error.strerror}",
            where=str(error.filename or folder),
            remedy=f"remove what another user, such as root, has left there: sudo rm -r {shlex.quote(str(folder))}; "
            "or choose another place with --folder",
        ) from None
    return root


class _Stream(RawIOBase):
    """What an iterator gives, to be read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, missing = [], size
        while missing > 0:
            self._left = self._left or next(self._chunks, b"")
            if not self._left:
                break
            parts.append(self._left[:missing])
            self._left = self._left[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)
