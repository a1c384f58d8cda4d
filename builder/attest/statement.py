"""in-toto statements: what is said, of which image.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from builder.reference import Digest
from builder.registry.content import as_content

MEDIA_TYPE = "application/vnd.in-toto+json"
VERIFICATION = "https://in-toto.io/attestation/test-result/v0.1"
PROVENANCE = "https://slsa.dev/provenance/v1"
SBOM = "https://cyclonedx.org/bom"
KINDS = {VERIFICATION: "verification", PROVENANCE: "provenance", SBOM: "SBOM"}
"""The statements that an image of this project has, and what people call them."""


class Subject(BaseModel):
    """What a statement is about. Its digests count, its name does not."""

    model_config = ConfigDict(frozen=True)

    name: str = ""
    digest: dict[str, str]


class Statement(BaseModel):
    """A predicate about subjects. Fields of later versions are read over, as the specification asks."""

    model_config = ConfigDict(frozen=True)

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[Subject, ...] = Field(min_length=1)
    predicate_type: str = Field(alias="predicateType")
    predicate: dict[str, Any]

    @classmethod
    def about(cls, name: str, digest: Digest, predicate_type: str, predicate: Mapping[str, Any]) -> Self:
        """Of the image `digest`, which people know as `name`."""
        subject = Subject(name=name, digest={"sha256": str(digest).removeprefix("sha256:")})
        return cls(
            _type="https://in-toto.io/Statement/v1",
            subject=(subject,),
            predicateType=predicate_type,
            predicate=dict(predicate),
        )

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Reads a statement.

        Raises:
            ValueError: it is none; the message says why in a line.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}") from None

    @property
    def title(self) -> str:
        """What people call it."""
        return KINDS.get(self.predicate_type, self.predicate_type)

    def is_about(self, digest: Digest) -> bool:
        """Whether it is about this image and nothing else."""
        return [each.digest.get("sha256") for each in self.subject] == [str(digest).removeprefix("sha256:")]

    @property
    def content(self) -> bytes:
        """The same statement is the same bytes."""
        return as_content(self.model_dump(by_alias=True))
