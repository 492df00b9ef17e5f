"""Targets say what became of a space; lexicons are read as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from candling.errors import DataError, ParamsError
from candling.language import read_lexicon, spelled, target_of
from tests.language.conftest import small


def test_with_and_without_a_space_where_it_matters() -> None:
    model = small()
    found = spelled(model, "girl")
    assert [target.text for target in found] == ["girl", " girl"]
    assert found[1].pieces == ("▁girl",)
    assert spelled(model, " girl") == found


def test_tokens_of_bytes_are_named_as_they_read() -> None:
    model = small()
    assert model.pieces(model.encode(" girl\n")) == ["▁girl", "⏎"]
    assert "".join(model.pieces(model.encode("The dog."))) == "The▁dog."


def test_a_lexicon_has_an_entry_a_line(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text(
        '# diagnoses\nflu\n" a cold"  # with a space\nflu\n\nacné # with an accent\n', encoding="utf-8"
    )
    assert read_lexicon(file) == ["flu", " a cold", "acné"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such lexicon"), (b"# nothing\n\n", "names nothing"), (b"\xff\xfe", "not a lexicon of UTF-8")],
)
def test_a_lexicon_that_cannot_be_used_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "words.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_lexicon(file)


def test_a_target_that_is_nothing_or_too_long_is_told() -> None:
    model = small()
    with pytest.raises(ParamsError, match="tokenizes to nothing"):
        target_of(model, "")
    with pytest.raises(ParamsError, match="longer than the model's context of 128"):
        target_of(model, " xyz" * 60)
