"""Candling: hold a model to the light, and see what it has really learned.

`prototypes` and `visualize` make the pictures that excite a class, a channel or a neuron the most, `layers`
lists what there is to name, `isolate` shows which parts of a picture a prediction uses, `trick` changes a
picture so little that nobody sees it and so that a model does, `entanglement` tells which classes a model
keeps close together. Of language models `associations` tells which words make one say a concept, `attribute`
which parts of a prompt made it say something. They need the extra ``engine``; `import candling` alone needs
and loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from candling.language.attribution import Attribution, attribute
    from candling.language.mapping import AssociationMap, associations
    from candling.vision.entanglements import Entanglements, entanglement
    from candling.vision.isolations import Isolations, isolate
    from candling.vision.results import Visualizations
    from candling.vision.tricking import Tricked, trick
    from candling.vision.visualization import layers, prototypes, visualize

__all__ = [
    "AssociationMap",
    "Attribution",
    "Entanglements",
    "Isolations",
    "Tricked",
    "Visualizations",
    "associations",
    "attribute",
    "entanglement",
    "isolate",
    "layers",
    "prototypes",
    "trick",
    "visualize",
]

_HOMES = {
    "AssociationMap": "candling.language.mapping",
    "Attribution": "candling.language.attribution",
    "Entanglements": "candling.vision.entanglements",
    "Isolations": "candling.vision.isolations",
    "Tricked": "candling.vision.tricking",
    "Visualizations": "candling.vision.results",
    "associations": "candling.language.mapping",
    "attribute": "candling.language.attribution",
    "entanglement": "candling.vision.entanglements",
    "isolate": "candling.vision.isolations",
    "layers": "candling.vision.visualization",
    "prototypes": "candling.vision.visualization",
    "trick": "candling.vision.tricking",
    "visualize": "candling.vision.visualization",
}

if not TYPE_CHECKING:  # or every name would be taken for one that is there

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'candling' has no attribute {name!r}")
        try:
            found = getattr(import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "candling":
                raise
            message = f"candling.{name} needs {error.name}; install it with `pip install 'candling[engine]'`"
            raise ModuleNotFoundError(message, name=error.name) from error
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
