"""The steps of an audit of a language model: what it associates, why it says what; repair, and look again."""

from __future__ import annotations

from typing import Any

from flows.examination import Examination
from tasks.attribute_prompts import attribute_prompts
from tasks.find_glitches import find_glitches
from tasks.language_context import LanguageContext
from tasks.load_language_model import load_language
from tasks.map_associations import map_concept
from tasks.measure_perplexity import measure_texts
from tasks.repair import repair

__all__ = ["begin_language"]


def examine_language(context: LanguageContext, name: str, subject: Any) -> Examination:
    """Audit one subject: prompts are searched for each concept beside the others."""
    maps: dict[str, Any] = {
        f"map associations of {concept.label}": map_concept.submit(context, subject, number)
        for number, concept in enumerate(context.params.concepts)
    }
    return Examination(
        name,
        subject,
        {
            "load model": subject,
            **maps,
            "find glitches": find_glitches.submit(context, subject),
            "attribute prompts": attribute_prompts.submit(context, subject),
            "measure perplexity": measure_texts.submit(context, subject),
        },
    )


def begin_language(context: LanguageContext) -> list[Examination]:
    """Submit every step of every subject."""
    first: Any = load_language.submit(context, context.params.first_subject)
    examinations = [examine_language(context, context.params.first_subject, first)]
    for name in context.params.made:
        examinations.append(examine_language(context, name, repair.submit(context, name, first)))
    return examinations
