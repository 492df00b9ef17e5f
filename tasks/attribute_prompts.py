"""Step: let a language model go on with the eval prompts, and say which of their words made it say that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.audit.record import Measurement, measured
from tasks.context import LanguageContext, Tick, write_findings
from tasks.examine import read_model
from tasks.load_model import Subject
from tasks.read_texts import read_located
from tasks.store import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from candling.language import Attribution, LanguageModel
    from candling.language.attribution import AttributionMethod

__all__ = ["attribute_prompts"]


@task(name="attribute prompts")
def attribute_prompts(context: LanguageContext, subject: Subject) -> Stored:
    """Attribute what follows each eval prompt to its words, and each word of a lexicon that follows."""
    params = context.params
    settings = params.attribution
    lexicons = {name: words for name, words in params.listed(context.root).items() if name in params.hits}

    def read(model: LanguageModel, out: Path, tick: Tick) -> None:
        import numpy as np
        import pandas as pd

        from candling.language.generation import continued
        from candling.statistics import mean, proportion
        from tasks.artifacts import table

        located = context.dataset.splits.get("prompts")
        if located is None:
            note = "Nothing is attributed: name a file of prompts under prompts:, one a line."
            write_findings(out, [], notes={"left_out.attribution": note})
            return
        prompts = read_located(located)
        tokens = [model.encode(prompt) for prompt in prompts]
        said = continued(model, tokens, settings.said)
        found: list[Attribution] = []
        rows: list[pd.DataFrame] = []
        few = min(settings.prompts, len(prompts))
        for i in range(few):
            one = _attributed(model, tokens[i], said[i][: settings.tokens], settings.method)
            if one is not None:
                found.append(one)
                rows.append(_table(one, i, ""))
            tick(i + 1, few)
        measurements: list[Measurement] = []
        if found:
            figures = np.array(
                [(a.comprehensiveness, a.comprehensiveness_random, a.sufficiency) for a in found]
            )
            measurements += [
                measured("attribution.comprehensiveness", mean(figures[:, 0])),
                measured("attribution.over_random", mean(figures[:, 0] - figures[:, 1])),
                measured("attribution.sufficiency", mean(figures[:, 2])),
            ]
        for name, words in lexicons.items():
            hits = [(i, place) for i, text in enumerate(said) if (place := _hit(model, text, words))]
            rate = proportion(len(hits), len(prompts))
            measurements.append(measured("lexicon.hit_rate", rate, {"lexicon": name}))
            for i, (first, last) in hits[: settings.prompts]:
                one = _attributed(model, [*tokens[i], *said[i][:first]], said[i][first:last], settings.method)
                if one is not None:
                    rows.append(_table(one, i, name))
        artifacts = []
        if rows:
            every = pd.concat(rows, ignore_index=True)
            caption = f"{len(found)} prompts, {settings.method}"
            artifacts = [table(out, "tables/attributions", every, section="attribution", caption=caption)]
        write_findings(out, measurements, artifacts)

    return read_model(
        context, "attribute prompts", subject, ["prompts"], read, module=__name__,
        settings=settings.model_dump(), lexicons=lexicons,
    )  # fmt: skip


def _attributed(
    model: LanguageModel, prompt: Sequence[int], output: Sequence[int], method: AttributionMethod
) -> Attribution | None:
    """What of a prompt's tokens made the model say these; None where the text of either is lost."""
    from candling.errors import ParamsError
    from candling.language import attribute

    text, target = model.decode(prompt), model.decode(output)
    if not text.strip() or not target.strip():
        return None
    try:
        return attribute(model, text, target=target, method=method)
    except ParamsError:  # too long together for the model's context
        return None


def _hit(model: LanguageModel, said: Sequence[int], words: Sequence[str]) -> tuple[int, int] | None:
    """The tokens, first and after the last, in which a word of a lexicon is said for the first time."""
    from candling.language.associations import words_in

    wanted = [words_in(word) for word in words]
    for last in range(1, len(said) + 1):
        # A word is whole only where the next token begins another.
        text = model.decode(said[:last])
        following = model.decode(said[: last + 1])
        if last < len(said) and following[len(text) :][:1].isalpha():
            continue
        held = words_in(text)
        if any(one and one <= held for one in wanted):
            first = last - 1
            while first and not any(
                one and one <= words_in(model.decode(said[first:last])) for one in wanted
            ):
                first -= 1
            return first, last
    return None


def _table(found: Attribution, prompt: int, lexicon: str) -> pd.DataFrame:
    rows = found.table
    return rows.assign(
        prompt=prompt, said=found.target.text, lexicon=lexicon, log_probability=found.score,
        comprehensiveness=found.comprehensiveness, random=found.comprehensiveness_random,
    )  # fmt: skip
