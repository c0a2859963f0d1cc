"""The rows of every set out of finished records (sections 3.2.2 and 3.2.3, the baselines of 4.1)."""

from dataclasses import dataclass

from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.sets import Form, Set, sets_of
from sdrrl_factory.transfer.stage import Batch, Stage
from sdrrl_factory.transfer.store import rows_of
from sdrrl_factory.transfer.wishes import are_worded, joined, wish


@dataclass(frozen=True)
class Assemble(Stage):
    """+ rows: {set: its rows}, of each record; none of a form whose translation was rejected (see sets.py)."""

    systems: tuple[str, ...]
    source: str
    target: str
    answer_language: str
    seed: int

    def __call__(self, batch: Batch, tool: None = None) -> Batch:
        subsets = [subset for subset in sets_of(self.systems) if not subset.is_natural]
        rows = [{subset.name: self._rows(subset, record) for subset in subsets} for record in rows_of(batch)]
        return {**batch, "rows": rows}

    def _rows(self, subset: Set, record: dict) -> list[dict]:
        good = [form for form in subset.forms if all(record[f"{side}_ok"] for side in form.needs)]
        return [self._row(subset, form, record) for form in good]

    def _row(self, subset: Set, form: Form, record: dict) -> dict:
        codes = {"source": self.source, "target": self.target}
        asked_in, answered_in = (codes[language] for language in form.languages)
        instruction_column, input_column = form.question_columns
        # As the paper prints them, TL and TT ask the same and are answered in two languages: the wish tells which.
        answer_language = self.answer_language if subset.wish == "recipe" else subset.wish
        draw = rng(self.seed, record["id"], f"wish {subset.name}")
        worded = are_worded(self.source, self.target)
        request = wish(asked_in, answered_in, answer_language, draw) if worded else ""
        return {
            "id": record["id"],
            "subset": subset.name,
            "system": record["system"],
            "instruction": joined(record[instruction_column], request, asked_in),
            "input": record[input_column],
            "output": record[form.answer_column],
            "source_lang": self.source,
            "target_lang": self.target,
            "answer_origin": record["answer_origin"] if form.is_drawn else "D",
        }


def natural_row(name: str, row: dict, source: str, target: str) -> dict:
    """A row of D_mt or D_comp (section 3.2.4); `row` has id, instruction, input and output."""
    return {
        "id": row["id"],
        "subset": name,
        "system": "",
        "instruction": row["instruction"],
        "input": row["input"],
        "output": row["output"],
        "source_lang": source,
        "target_lang": target,
        "answer_origin": "P",
    }
