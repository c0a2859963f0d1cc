import pytest
from sacrebleu import sentence_chrf

from sdrrl_factory.transfer.quality import score

BACK = {"Hola mundo": "Hello world", "Qué es": "What it is", "esto": "this one", "Nada": "Something else", "": ""}
BATCH = {
    "id": ["a", "b"],
    "instruction": ["Hello world", "What is"],
    "input": ["", "this"],
    "answer": ["Hello, world", "Nothing"],
    "instruction_mt": ["Hola mundo", "Qué es"],
    "input_mt": ["", "esto"],
    "answer_mt": ["Hola mundo", "Nada"],
}


def translate_back(texts):
    return [BACK[t] for t in texts]


def chrf(back, source):
    return pytest.approx(sentence_chrf(back, [source]).score / 100, abs=1e-4)


def test_scores_are_chrf_of_the_round_trip():
    out = score(BATCH, translate_back)
    assert out["question_qe"] == [1.0, chrf("What it is\nthis one", "What is\nthis")]
    assert out["answer_qe"] == [chrf("Hello world", "Hello, world"), chrf("Something else", "Nothing")]
    assert 0 < out["answer_qe"][1] < out["question_qe"][1] < 1


@pytest.mark.parametrize(
    ("column", "scored"), [("instruction_mt", "question"), ("input_mt", "question"), ("answer_mt", "answer")]
)
def test_a_missing_translation_scores_nothing(column, scored):
    out = score({**BATCH, column: [BATCH[column][0], None]}, translate_back)
    whole = score(BATCH, translate_back)
    other = {"question": "answer", "answer": "question"}[scored]
    assert out[f"{scored}_qe"] == [whole[f"{scored}_qe"][0], 0.0]
    assert out[f"{other}_qe"] == whole[f"{other}_qe"]


def test_a_text_that_cannot_be_translated_back_scores_nothing():
    out = score(BATCH, lambda texts: [None if t in ("esto", "Nada") else BACK[t] for t in texts])
    assert out["question_qe"] == [1.0, 0.0] and out["answer_qe"][1] == 0.0


def test_a_score_does_not_depend_on_its_neighbours():
    whole = score(BATCH, translate_back)
    for i in range(2):
        alone = score({key: [values[i]] for key, values in BATCH.items()}, translate_back)
        assert alone == {key: [values[i]] for key, values in whole.items()}
