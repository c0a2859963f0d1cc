"""Whether a checkpoint and a template make prompts together: told from files, and held against LLaMA-Factory itself."""

import json
import shutil

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.factory import template_facts
from sdrrl_factory.models.lm import LM
from sdrrl_factory.models.prompts import check_prompts


def test_the_templates_read_off_the_source_are_those_that_an_import_gives():
    from llamafactory.data.template import TEMPLATES

    facts = template_facts()
    # Two more are made of others when the module runs.
    assert facts.keys() == TEMPLATES.keys()
    for name, template in TEMPLATES.items():
        assert set(facts[name].needs) <= set(template.stop_words), name
        if template.replace_eos:
            assert facts[name].needs[0] == template.stop_words[0], name


@pytest.fixture
def changed(tiny, tmp_path):
    """The tiny checkpoint with other keys in its tokenizer_config.json; None takes one out."""

    def make(**keys):
        folder = tmp_path / "model"
        shutil.copytree(tiny, folder)
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_text()) | keys
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
        special = folder / "special_tokens_map.json"
        if special.exists():
            values = {key: value for key, value in json.loads(special.read_text()).items() if keys.get(key, 1)}
            special.write_text(json.dumps(values))
        if "chat_template" in keys:
            (folder / "chat_template.jinja").unlink(missing_ok=True)
        return folder

    return make


def test_a_checkpoint_that_has_what_the_template_needs_passes(tiny):
    check_prompts(str(tiny), "smollm2")
    check_prompts(str(tiny), None)
    check_prompts("org/on-the-hub", "smollm2")


@pytest.mark.parametrize(
    ("template", "key", "said"),
    [
        ("smolm2", "template", "LLaMA-Factory has no template 'smolm2'; did you mean smollm2?"),
        ("gemma", "template", "has no token <end_of_turn>, which LLaMA-Factory's template gemma puts into its prompts"),
        ("llama3", "template", "has no token <|eot_id|>"),
    ],
)
def test_a_template_that_does_not_fit_is_one_line(tiny, template, key, said):
    with pytest.raises(UserError) as err:
        check_prompts(str(tiny), template)
    assert err.value.key == key and said in str(err.value)


@pytest.mark.parametrize("template", ["gemma", "llama3"])
def test_loading_says_the_same_where_the_files_did_not_tell(tiny, template):
    with pytest.raises(UserError, match="has no token") as err:
        LM(str(tiny), template)
    assert err.value.key == "template"


def test_neither_an_end_nor_padding(changed):
    folder = str(changed(eos_token=None, pad_token=None))
    for look in (check_prompts, LM):
        with pytest.raises(UserError, match="has neither a token that ends a text") as err:
            look(folder, None)
        assert err.value.key == "model"


def test_no_chat_template(changed):
    folder = str(changed(chat_template=None))
    for look in (check_prompts, LM):
        with pytest.raises(UserError, match="has no chat template") as err:
            look(folder, None)
        assert err.value.key == "model"
    check_prompts(folder, "smollm2")
