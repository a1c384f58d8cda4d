"""The packages of an image, as the stages printed them (builder/stages/inventory.py), and their package URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from packageurl import PackageURL
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from builder.errors import NothingBuilt


class DebianPackage(BaseModel):
    """An installed package of dpkg."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    architecture: str
    source: str
    """The source package that it was built from."""
    source_version: str


class PythonPackage(BaseModel):
    """An installed wheel."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    folder: str
    """Where its files are in the image."""

    @property
    def purl(self) -> PackageURL:
        return PackageURL("pypi", None, self.name, self.version)


class Inventory(BaseModel):
    """What an image has, as dpkg and the wheels' own metadata tell it."""

    model_config = ConfigDict(frozen=True)

    debian: tuple[DebianPackage, ...] = ()
    python: tuple[PythonPackage, ...] = ()
    os: dict[str, str] = Field(default_factory=dict)
    """os-release."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """What a build left.

        Raises:
            NothingBuilt: there is none, or one that this version does not understand.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            raise NothingBuilt(
                "the list of the image's packages cannot be read",
                where=str(path),
                remedy="run `python -m builder build` again",
            ) from None

    def purl(self, package: DebianPackage) -> PackageURL:
        """Of a package of dpkg: https://github.com/package-url/purl-spec, type deb.

        `upstream` names the source, as Syft does: Debian tells vulnerabilities by the source's name.
        """
        vendor, release = self.os.get("ID", "debian"), self.os.get("VERSION_ID", "")
        qualifiers = {"arch": package.architecture}
        if release:
            qualifiers["distro"] = f"{vendor}-{release}"
        if (package.source, package.source_version) != (package.name, package.version):
            same = package.source_version == package.version
            qualifiers["upstream"] = package.source if same else f"{package.source}@{package.source_version}"
        return PackageURL("deb", vendor, package.name, package.version, qualifiers)
