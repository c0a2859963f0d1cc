"""FLORES-200 (NLLB Team 2022): both directions, asked as in Table 1.

Signature: `nrefs:1|case:mixed|eff:no|tok:flores200|smooth:exp|version:...`, the paper's with sacrebleu's version of
today. `tok:flores200` needs sacrebleu's SentencePiece model, `~/.sacrebleu/models/flores200sacrebleuspm` (`sacrebleu
--tokenize flores200` fetches it; the variable SACREBLEU names another folder). Without it: `tokenizer: 13a`, or any
other of sacrebleu's.
"""

from typing import Literal

from sdrrl_eval.measure.tasks.translation import Metric, Translation


class Flores(Translation):
    """BLEU with tok:flores200 and chrF++, both directions; also chrF and COMET."""

    task: Literal["flores"]  # type: ignore[assignment]  # a translation in all but the name and what it is scored by
    path: str
    """The folder of `flores200_dataset.tar.gz` (facebookresearch/flores), its `devtest` or its `dev`."""
    metrics: list[Metric] = ["bleu", "chrf++"]
    tokenizer: str = "flores200"
    """sacreBLEU's name of BLEU's."""

    def bleu_tokenizer(self) -> str | None:
        return self.tokenizer
