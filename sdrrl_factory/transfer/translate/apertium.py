"""Apertium: rule-based translation, offline, from the distribution's own packages.

Segments go through the pair's pipeline divided by NUL bytes. The statistical tagger is the one part whose choice
depends on what it read before (an unseen ambiguity class changes its tables), so it alone is started anew for each
segment: a translation then never depends on its neighbours, at under 4 ms a segment.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import LANGUAGES

_SPECIAL = re.compile(r"([\[\]{}^$/\\@<>~])")
_ESCAPED = re.compile(r"\\(.)")
_GAP = re.compile(r"\s+([.,;:?!])(?=\s|$)")
_END = ".[][\n]"  # what Apertium's own deformatter puts behind a text: a sentence end and an empty blank


class Apertium:
    """Args: pairs: the directions (ISO 639-3, ISO 639-3) that will be asked for; place: the recipe key, for errors."""

    name = "apertium 3"

    def __init__(self, pairs: Sequence[tuple[str, str]], place: str):
        program = shutil.which("apertium")
        if program is None:
            raise UserError(f"{place}: apertium is not installed; run `apt-get install apertium apertium-eng-spa`")
        modes = Path(program).parent.parent / "share/apertium/modes"
        installed = {path.stem: path for path in sorted(modes.glob("*.mode"))}
        self._modes = {}
        for source, target in pairs:
            names = [f"{a}-{b}" for a in _codes(source) for b in _codes(target)]
            found = next((installed[name] for name in names if name in installed), None)
            if found is None:
                raise UserError(
                    f"{place}: Apertium has no pair {names[0]} here (installed: {', '.join(installed) or 'none'});"
                    f" see `apt-cache search apertium-` for a package with it, or choose another target_lang"
                )
            self._modes[source, target] = _stages(found)

    def translate(self, segments: Sequence[str], source: str, target: str) -> list[str]:
        before, tagger, after = self._modes[source, target]
        stream = [_SPECIAL.sub(_escaped, " ".join(s.replace("\0", " ").split())) + _END for s in segments]
        stream = _through(before, stream)
        if tagger:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                stream = list(pool.map(lambda text: _run(tagger, text), stream))
            stream = _through(after, stream)
        return [_plain(text) for text in stream]


def _escaped(match: re.Match) -> str:
    return f"[{match[1]}]" if match[1] == "~" else f"\\{match[1]}"


def _codes(code: str) -> list[str]:
    row = LANGUAGES[code]
    return [row.apertium, row.iso1]


def _stages(mode: Path) -> tuple[str, list[str], str]:
    """The pipeline of a .mode file: before the tagger, the tagger, after it; every part flushing at NUL."""
    # $1 and $2 are the shell's places for the generator's and the tagger's options: unknown words unmarked, none.
    parts = [p.strip() for p in mode.read_text().replace("$1", "-n").replace("$2", "").strip().split("|")]
    at = next((i for i, p in enumerate(parts) if p.startswith("apertium-tagger")), None)
    flushing = [p.replace(" ", " -z ", 1) if " " in p else f"{p} -z" for p in parts]
    if at is None:
        return " | ".join(flushing), [], ""
    return " | ".join(flushing[:at]), shlex.split(parts[at]), " | ".join(flushing[at + 1 :])


def _through(pipeline: str, texts: list[str]) -> list[str]:
    out = _run(["bash", "-o", "pipefail", "-c", pipeline], "".join(f"{t}\0" for t in texts)).split("\0")[: len(texts)]
    return out + [""] * (len(texts) - len(out))


def _run(command: list[str], text: str) -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, input=text.encode(), capture_output=True, env=environment)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise UserError(
            f"translator: apertium ended with status {done.returncode} ({' '.join(said)}); reinstall its pair"
        )
    return done.stdout.decode("utf-8", "replace")


def _plain(text: str) -> str:
    """Without the end mark and escapes, and without the blanks that words leave behind which Apertium dropped."""
    plain = " ".join(_ESCAPED.sub(r"\1", text.removesuffix(_END).replace("[~]", "~")).split())
    return _GAP.sub(r"\1", plain)
