"""T: machine translation. One protocol, one file a backend, and what all of them share."""

from collections.abc import Sequence
from typing import Protocol

from sdrrl_factory.text import pieces
from sdrrl_factory.transfer.translate.memory import TranslationMemory


class Translator(Protocol):
    """`name` tells this translator and its settings from any other, in the memory."""

    name: str

    def translate(self, segments: Sequence[str], source: str, target: str) -> list[str]:
        """Translate each segment (one sentence, no line ends) from ISO 639-3 `source` to `target`, in order.

        The result for a segment does not depend on its neighbours.
        """
        ...


def translate_texts(
    texts: Sequence[str], translator: Translator, memory: TranslationMemory, source: str, target: str
) -> list[str | None]:
    """Translate whole texts: cut into sentences, each distinct one translated once ever, structure put back.

    None stands for a text one of whose sentences could not be translated.
    """
    cut = [list(pieces(text)) for text in texts]
    wanted = list(dict.fromkeys(piece for text in cut for piece, translate in text if translate))
    known = memory.get(wanted, translator.name, source, target)
    missing = [s for s in wanted if s not in known]
    if missing:
        fresh = dict(zip(missing, translator.translate(missing, source, target), strict=True))
        memory.put({s: t for s, t in fresh.items() if t.strip()}, translator.name, source, target)
        known |= fresh
    out = []
    for text in cut:
        parts = [known[piece] if translate else piece for piece, translate in text]
        failed = any(translate and not known[piece].strip() for piece, translate in text)
        out.append(None if failed else "".join(parts))
    return out
