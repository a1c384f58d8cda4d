"""Build caches that outlive a builder: in a registry, or in a folder of this machine.

The forms are those of buildx: https://docs.docker.com/build/cache/backends/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from builder.errors import BadReference, BadUsage
from builder.reference import Reference

_PLACES = {"registry": ("ref", "ref"), "local": ("src", "dest")}
"""Where each type keeps it: the attribute of `--cache-from`, and that of `--cache-to`."""
_TAG_LENGTH = 128
_EXPORTED = {
    # All stages: the last one alone would say nothing of the compiler's.
    "mode": "max",
    # As the image's layers: of a layer that is compressed already BuildKit makes no second form, and the digest of the
    # image must not depend on which of the two was asked for first.
    "compression": "zstd",
    "oci-mediatypes": "true",
}


@dataclass(frozen=True)
class Cache:
    """A `--cache-to` or a `--cache-from`."""

    option: str
    attributes: dict[str, str]
    place: str
    """The attribute that tells where it is."""

    @classmethod
    def parse(cls, option: str, text: str) -> Self:
        """Reads `type=registry,ref=...`, or as buildx does a reference alone.

        Raises:
            BadUsage, BadReference: it is something else.
        """
        fields = text.split(",") if "=" in text else ["type=registry", f"ref={text}"]
        given = dict(each.partition("=")[::2] for each in fields)
        kind = given.pop("type", "")
        if kind not in _PLACES:
            raise BadUsage(
                f"{kind or text!r} is no type of cache that is known here",
                where=option,
                remedy=f"write {option} type=registry,ref=HOST/PATH, or type=local with a folder",
            )
        place = _PLACES[kind][option == "--cache-to"]
        if not given.get(place):
            raise BadUsage(f"a cache of type {kind} has no {place}=", where=f"{option} {text}", remedy=f"add {place}=")
        if kind == "registry" and Reference.parse(given[place]).digest:
            raise BadReference(
                "a cache is not kept by digest", where=f"{option} {text}", remedy="name a repository, or a tag"
            )
        return cls(option, {"type": kind, **(_EXPORTED if option == "--cache-to" else {}), **given}, place)

    def of(self, target: str) -> str:
        """As bake takes it, at a place of the target's own: one that several share would have the last one's alone."""
        at = self.attributes[self.place]
        if self.attributes["type"] == "registry":
            named = Reference.parse(at)
            at = str(named.with_tag(f"{named.tag}-{target}"[-_TAG_LENGTH:].lstrip(".-") if named.tag else target))
        else:
            at = f"{at}/{target}"
        return ",".join(f"{name}={value}" for name, value in {**self.attributes, self.place: at}.items())


@dataclass(frozen=True)
class Caches:
    """Where a build looks for what was made elsewhere, and where it leaves what it made."""

    imported: tuple[Cache, ...] = ()
    exported: tuple[Cache, ...] = ()

    @classmethod
    def parse(cls, imported: Sequence[str] = (), exported: Sequence[str] = ()) -> Self:
        """Raises BadUsage, BadReference."""
        return cls(
            tuple(Cache.parse("--cache-from", each) for each in imported),
            tuple(Cache.parse("--cache-to", each) for each in exported),
        )

    def imports(self, target: str) -> dict[str, Any]:
        """What a bake target has for it; a cache that is not there is no failure to BuildKit."""
        return {"cache-from": [each.of(target) for each in self.imported]} if self.imported else {}

    def exports(self, target: str) -> dict[str, Any]:
        return {"cache-to": [each.of(target) for each in self.exported]} if self.exported else {}
