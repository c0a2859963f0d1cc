"""The six subsets (sections 3.2.2 to 3.2.4) out of finished records."""

from sdrrl_factory.transfer.codeswitch import QUESTIONS
from sdrrl_factory.transfer.wishes import wish

SUBSETS = ("LL", "TL", "LT", "TT", "mt", "comp")


def rows_of_record(record: dict, source: str, target: str, answer_language: str) -> dict[str, dict]:
    """Subset -> its row; TL and TT need a good translation of the question, LT and TT of the answer."""
    rows = {}
    for subset in QUESTIONS:
        asked, answered = (source if side == "L" else target for side in subset)
        if (asked == target and not record["question_ok"]) or (answered == target and not record["answer_ok"]):
            continue
        instruction = record[f"instruction_{subset.lower()}_cs"]
        hope = wish(asked, answered, answer_language)
        rows[subset] = row(
            subset,
            record["id"],
            f"{instruction} {hope}" if hope else instruction,
            record[f"input_{subset.lower()}_cs"],
            record["answer" if answered == source else "answer_mt"],
            source,
            target,
            record["answer_origin"],
        )
    return rows


def row(subset, rid, instruction, given, output, source, target, origin) -> dict:
    """A line of a subset file: LLaMA-Factory's alpaca format; it passes over the extra columns."""
    return {
        "id": rid,
        "subset": subset,
        "instruction": instruction,
        "input": given,
        "output": output,
        "source_lang": source,
        "target_lang": target,
        "answer_origin": origin,
    }
