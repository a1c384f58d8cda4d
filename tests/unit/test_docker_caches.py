from __future__ import annotations

import pytest

from builder.docker.caches import Caches
from builder.errors import BadReference, BadUsage, BuilderError

EXPORTED = "mode=max,compression=zstd,oci-mediatypes=true"


@pytest.mark.parametrize(
    ("given", "ref"),
    [
        ("registry.example.com/team/cache", "registry.example.com/team/cache:embedded"),
        ("type=registry,ref=localhost:5000/cache", "localhost:5000/cache:embedded"),
        ("type=registry,ref=localhost:5000/cache:main", "localhost:5000/cache:main-embedded"),
        (
            "ref=localhost:5000/cache:" + "a" * 127 + "b,type=registry",
            "localhost:5000/cache:" + "a" * 118 + "b-embedded",
        ),
        ("type=registry,ref=localhost:5000/cache:" + "a." * 64, "localhost:5000/cache:" + ".a" * 59 + ".-embedded"),
    ],
)
def test_a_cache_in_a_registry_has_a_tag_for_each_target(given: str, ref: str) -> None:
    [cache] = Caches.parse(imported=[given]).imports("embedded")["cache-from"]
    assert cache == f"type=registry,ref={ref.replace(':.', ':')}"


def test_what_is_exported_is_every_stage_in_the_image_s_own_compression() -> None:
    [cache] = Caches.parse(exported=["localhost:5000/cache"]).exports("ngc")["cache-to"]
    assert cache == f"type=registry,{EXPORTED},ref=localhost:5000/cache:ngc"


def test_what_a_user_writes_counts() -> None:
    given = "type=registry,ref=localhost:5000/cache,mode=min,image-manifest=true"
    [cache] = Caches.parse(exported=[given]).exports("ngc")["cache-to"]
    assert {"mode=min", "image-manifest=true", "compression=zstd"} <= set(cache.split(","))


def test_a_cache_in_a_folder_has_one_below_it_for_each_target() -> None:
    caches = Caches.parse(["type=local,src=/ci/cache"], ["type=local,dest=/ci/cache"])
    assert caches.imports("ngc") == {"cache-from": ["type=local,src=/ci/cache/ngc"]}
    assert caches.exports("ngc") == {"cache-to": [f"type=local,{EXPORTED},dest=/ci/cache/ngc"]}


def test_several_are_looked_into_in_their_order() -> None:
    caches = Caches.parse(["localhost:5000/cache:branch", "localhost:5000/cache:main"])
    assert [each.rpartition(":")[2] for each in caches.imports("a")["cache-from"]] == ["branch-a", "main-a"]


def test_without_caches_a_target_has_none() -> None:
    assert (Caches().imports("a"), Caches().exports("a")) == ({}, {})


@pytest.mark.parametrize(
    ("given", "failure", "what"),
    [
        ("type=gha,scope=x", BadUsage, "'gha' is no type"),
        ("ref=localhost:5000/cache", BadUsage, "is no type"),
        ("type=registry", BadUsage, "has no ref="),
        ("type=local,dest=/x", BadUsage, "has no src="),
        ("type=registry,ref=", BadUsage, "has no ref="),
        ("Not A Reference", BadReference, "is not an image reference"),
        (f"type=registry,ref=localhost:5000/cache@sha256:{'a' * 64}", BadReference, "not kept by digest"),
    ],
)
def test_what_is_no_cache_is_told(given: str, failure: type[BuilderError], what: str) -> None:
    with pytest.raises(failure, match=what) as raised:
        Caches.parse(imported=[given])
    assert raised.value.remedy
