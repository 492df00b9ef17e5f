"""In a chat template the prompt is what the user says, and what is scored begins the answer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from candling.errors import ParamsError
from candling.language import LanguageModel, associations, attribute, log_probabilities, search_prompts
from candling.language.search import Discrete
from candling.language.turns import turn_of
from tests.language.conftest import small

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content | trim }}<end>"
    "{% endfor %}{% if add_generation_prompt %}answer:{% endif %}"
)
CHATML = (
    "{% for message in messages %}<begin>{{ message.role }}\n{{ message.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<begin>assistant\n{% endif %}"
)
QUICK = Discrete(width=16, budget=1500, patience=3)


def talking(template: str | None = TEMPLATE, kind: str = "llama") -> LanguageModel:
    model = small(kind)
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = template
    return LanguageModel(model.network, tokenizer, "talking")


def asked(model: LanguageModel, said: str) -> list[int]:
    """Tokens by the tokenizer's own way of filling in the template."""
    given = [{"role": "user", "content": said}]
    out = model.tokenizer.apply_chat_template(given, add_generation_prompt=True, return_dict=False)
    return [int(one) for one in out]


def answer(model: LanguageModel, rows: list[list[int]], text: str) -> torch.Tensor:
    """Log-probabilities by a plain pass over whole rows."""
    tokens = model.encode(text)
    found = []
    for row in rows:
        with torch.no_grad():
            logits = model.network(input_ids=torch.tensor([[*row, *tokens]])).logits[0].log_softmax(-1)
        found.append(sum(float(logits[len(row) - 1 + i, token]) for i, token in enumerate(tokens)))
    return torch.tensor(found)


@pytest.mark.parametrize("template", [TEMPLATE, CHATML])
def test_what_is_searched_is_scored_as_the_tokenizer_fills_it_in(template: str) -> None:
    model = talking(template)
    found = search_prompts(model, " girl", length=3, restarts=4, chat=True, discrete=QUICK)
    assert found.table.survives.all()
    rows = [asked(model, text) for text in found.table.text]
    assert found.table.log_probability.tolist() == pytest.approx(
        answer(model, rows, " girl").tolist(), abs=1e-4
    )
    assert template == CHATML or not any(text != text.strip() for text in found.table.text)
    plain = search_prompts(model, " girl", length=3, restarts=4, discrete=QUICK)
    assert plain.table.text.tolist() != found.table.text.tolist()
    head = turn_of(model, chat=True)
    bare = log_probabilities(model, [[*head.after]], model.encode(" girl"), start=head.before)
    assert found.prior == pytest.approx(float(bare), abs=1e-5)


@pytest.mark.parametrize("method", ["leave-one-out", "marginal", "integrated-gradients", "surrogate"])
def test_only_what_the_user_says_is_attributed_to(method: Any) -> None:
    model = talking()
    text = "The dog ran home"
    found = attribute(model, text, target="!", unit="token", chat=True, method=method)
    _, tokens, _ = turn_of(model, chat=True).placed(text)
    assert [unit.text for unit in found.units] == model.pieces(tokens)
    whole = asked(model, text)
    assert found.score == pytest.approx(float(answer(model, [whole], "!")), abs=1e-4)
    if method == "leave-one-out":
        turn = turn_of(model, chat=True)
        without = [[*turn.before, *tokens[:i], *tokens[i + 1 :], *turn.after] for i in range(len(tokens))]
        wanted = float(answer(model, [whole], "!")) - answer(model, without, "!")
        assert found.scores.tolist() == pytest.approx(wanted.tolist(), abs=2e-4)


def test_a_frame_is_given() -> None:
    model = talking()
    found = attribute(model, "The dog ran", target=" home", frame=" and the", chat=True, unit="token")
    rows = [[*asked(model, "The dog ran"), *model.encode(" and the")]]
    assert found.score == pytest.approx(float(answer(model, rows, " home")), abs=1e-4)
    assert len(found.units) == len(model.encode("The dog ran"))


def test_a_map_is_made_inside_of_the_template() -> None:
    model = talking()
    found = associations(
        model, " girl", controls=[" boy", " dog"], length=3, restarts=3, chat=True, discrete=QUICK
    )
    texts = found.prompts[0].table
    rows = [asked(model, text) for text in texts.text]
    assert texts.log_probability.tolist() == pytest.approx(answer(model, rows, " girl").tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "talking has no chat template"),
        ("{{ raise_exception('needs a system message') }}", "cannot be filled in .needs a system message"),
        ("{{ bos_token }}nothing", "does not say once what is said"),
    ],
)
def test_templates_that_cannot_be_used_are_told(template: str | None, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        search_prompts(talking(template), " girl", length=2, restarts=1, chat=True)


def test_an_audit_asks_inside_of_the_template_too() -> None:
    from tasks.attribute_prompts import _Asker

    model = talking()
    asker = _Asker(model, True, "leave-one-out")
    prompts = ["The dog ran home", "Once upon a time"]
    said = asker.said(prompts, 3)
    for prompt, tokens in zip(prompts, said, strict=True):
        row = asked(model, prompt)
        for token in tokens:
            with torch.no_grad():
                assert int(model.network(input_ids=torch.tensor([row])).logits[0, -1].argmax()) == token
            row.append(token)
    # What the model said before is given, and nothing is attributed to it.
    before, output = model.encode(" and the"), model.encode(" home")
    found = asker.attributed(prompts[0], before, output)
    assert found is not None
    rows = [[*asked(model, prompts[0]), *before]]
    assert found.score == pytest.approx(float(answer(model, rows, " home")), abs=1e-4)
    assert "".join(unit.text for unit in found.units) == "Thedogranhome"
    assert asker.attributed(prompts[0], [], []) is None
    assert asker.left_out == 1


ALPACA = "{{ bos_token }}{{ messages[0].content }}\n\n### Response:"
LLAMA2 = "{{ bos_token }}[INST] {{ messages[0].content.strip() }} [/INST]"
DATED = "{{ bos_token }}{{ strftime_now('%d %b %Y') }} {{ date_string }}: {{ messages[0].content }}\n answer:"


@pytest.mark.parametrize("template", [TEMPLATE, CHATML, ALPACA, LLAMA2, DATED])
@pytest.mark.parametrize("text", ["The dog", "the girl?", "\nfoo", " dog ", "a\n\nb", "7", "The dog.\n"])
def test_a_text_stands_where_the_template_puts_it(template: str, text: str) -> None:
    model = talking(template)
    turn = turn_of(model, chat=True)
    before, tokens, after = turn.placed(text)
    given = [{"role": "user", "content": text}]
    whole = model.tokenizer.apply_chat_template(
        given, add_generation_prompt=True, tokenize=False, date_string="26 Jul 2024",
        strftime_now=lambda form: "26 Jul 2024",
    )  # fmt: skip
    assert [*before, *tokens, *after] == model.encode(whole)
    assert text.strip() in model.decode(tokens)
    # What survives is what the template makes of the text, and has these tokens alone.
    if turn.survives(tokens):
        assert (before, after) == (turn.before, turn.after)
        assert turn.text(tokens) == (text.strip() if turn.trims else text)


def test_prompts_of_templates_without_special_tokens_survive() -> None:
    for template in (ALPACA, LLAMA2):
        found = search_prompts(talking(template), " girl", length=3, restarts=3, chat=True, discrete=QUICK)
        assert found.table.survives.all(), template
    assert turn_of(talking(LLAMA2), chat=True).trims
    assert not turn_of(talking(ALPACA), chat=True).trims


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0].content }}", "begins no answer"),
        ("{{ messages[0].content }} {{ messages[0].content }} answer:", "does not say once"),
    ],
)
def test_templates_that_say_it_otherwise_are_told(template: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        turn_of(talking(template), chat=True)
