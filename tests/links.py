"""Every link of the pages leads somewhere: `python tests/links.py` prints those that do not, status 1.

It reads the pages as GitHub shows them, in the folder; `mkdocs build` looks at the same of docs/ as a site. No network:
addresses of other sites are left alone.
"""

import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(?!`).*?\1")
_LINK = re.compile(r"\]\(([^()\s]+(?:\([^()\s]*\))?)\)|<img[^>]* src=\"([^\"]+)\"")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The names by which a page's headings are reached: GitHub's, the second of two alike with -1."""
    seen: Counter[str] = Counter()
    names = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
        names.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


def broken(root: Path) -> list[str]:
    """ "page: target: what is wrong" of each link in the pages of `root` and of its docs/ that leads nowhere."""
    wrong = []
    for page in sorted([*root.glob("*.md"), *root.glob("docs/**/*.md")]):
        text = page.read_text(encoding="utf-8")
        for match in _LINK.finditer(_CODE.sub("", _FENCE.sub("", text))):
            target = match[1] or match[2]
            path, _, anchor = target.partition("#")
            # An absolute path is one of the reader's machine.
            if _ELSEWHERE.match(target):
                continue
            file = page.parent / path if path else page
            if path.startswith("/") or not file.exists():
                wrong.append(f"{page.relative_to(root)}: {target}: no such file")
            elif anchor and anchor not in anchors(file.read_text(encoding="utf-8") if file.suffix == ".md" else ""):
                wrong.append(f"{page.relative_to(root)}: {target}: no such heading")
    return wrong


if __name__ == "__main__":
    print("\n".join(broken(ROOT)), end="")
    sys.exit(bool(broken(ROOT)))
