"""`candling attribute`: table, JSON, colours, and what ends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import candling
from candling.cli.main import run
from tests.language.conftest import small

PROMPT = "The nurse said that it will rain today!"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = small("gpt2")
    model.network.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_it_says_which_words_count(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["attribute", str(folder), PROMPT, "--target", " the boy", "--foil", " girl"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "nurse" in out
    assert "in random order" in out
    assert "' girl' is ▁girl" in out
    assert run(["attribute", str(folder), PROMPT, "--target", " the boy", "--foil", " girl", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [unit["text"] for unit in told["units"]][:2] == ["The", "nurse"]
    found = candling.attribute(str(folder), PROMPT, target=" the boy", foil=" girl")
    assert [unit["score"] for unit in told["units"]] == pytest.approx(found.scores.tolist())
    assert told["comprehensiveness"] == pytest.approx(found.comprehensiveness)


def test_a_terminal_gets_colours_and_no_orders(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("candling.cli.attribute.is_terminal", lambda: True)
    assert run(["attribute", str(folder), "The \x1b[2J \u202edog ran", "--target", "!"]) == 0
    out = capsys.readouterr().out
    assert "\x1b[2J" not in out
    assert "\u202e" not in out
    assert "\x1b[" in out


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("encoder", "is a sequence-to-sequence model; a causal language model is wanted"),
        ("masked", "is a masked language model; a causal language model is wanted"),
        ("weights", "no causal language model can be read"),
        ("tokenizer", "its tokenizer knows no tokens; save it"),
        ("other tokenizer", "they do not belong together"),
        ("code", "code of its own, which is never run"),
    ],
)
def test_what_is_no_causal_language_model_is_told_in_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], spoil: str, message: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    if spoil == "encoder":
        config |= {"is_encoder_decoder": True, "architectures": ["T5ForConditionalGeneration"]}
    elif spoil == "masked":
        config |= {"architectures": ["BertForMaskedLM"]}
    elif spoil == "weights":
        (folder / "model.safetensors").unlink()
    elif spoil == "tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    elif spoil == "other tokenizer":
        network = small("gpt2").network
        network.resize_token_embeddings(64)
        network.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
    else:
        config |= {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert run(["attribute", str(folder), PROMPT, "--target", "!"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
