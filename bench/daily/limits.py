"""How long a run may take, and which number each round's change gets."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Limit:
    """The end of the whole run: no round begins that would not come to its end before it."""

    seconds: float
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.began)

    def rounds(self, count: int, what: str) -> Iterator[int]:
        """As many as there is time for, taking each to be as long as the longest so far; one in any case."""
        longest = 0.0
        for number in range(count):
            if number and longest > self.left:
                say(f"{what}: no time for more than {number} of {count} rounds")
                return
            began = time.monotonic()
            yield number
            took = time.monotonic() - began
            longest = max(longest, took)
            say(f"{what}: round {number + 1} of {count} took {took:.0f} s")


def fresh() -> int:
    """A number that no build has seen: a change that was made before would be found in a cache."""
    return secrets.randbelow(1 << 20)


def say(message: str) -> None:
    print(f"bench: {message}", file=sys.stderr, flush=True)
