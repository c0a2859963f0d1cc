import random
from collections.abc import Sequence

import pytest

from sdrrl_factory.memory import Memory


class FakeTranslator:
    """Puts each segment through `function` and keeps what it was asked."""

    name = "fake"

    def __init__(self, function):
        self.function, self.asked = function, []

    def signature(self, source: str, target: str) -> str:
        return self.name

    def translate(self, segments: Sequence[str], source: str, target: str) -> list[str]:
        self.asked.append((list(segments), source, target))
        return [self.function(s) for s in segments]

    @property
    def segments(self) -> list[str]:
        return [s for segments, _, _ in self.asked for s in segments]


@pytest.fixture
def fake_translator():
    return FakeTranslator


@pytest.fixture
def memory(tmp_path):
    memory = Memory(tmp_path / "memory.sqlite")
    yield memory
    memory.close()


@pytest.fixture
def vocabulary() -> list[str]:
    """300 made-up words of letters."""
    random_ = random.Random(7)
    return sorted({"".join(random_.choices("abcdefgmnoprst", k=random_.randint(3, 9))) for _ in range(300)})
