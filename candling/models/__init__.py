"""Models as data: any classifier, imported once into a folder that holds and says all about it.

`import_model` makes that folder of a `ModelSource`, `load_model` rebuilds the model from it.
"""

from candling.digests import folder_digest, model_digest
from candling.models.batching import Batches, MemoryRanOut
from candling.models.classifier import Classifier, log_odds, probabilities
from candling.models.describing import describe
from candling.models.finetuning import with_new_head
from candling.models.heads import scores
from candling.models.importing import downloaded, import_model
from candling.models.opening import open_model
from candling.models.preprocessing import Preprocessing, read_preprocessing
from candling.models.reading import recording
from candling.models.running import (
    Layer,
    answer,
    batch_size,
    check_differentiable,
    evaluating,
    input_shape,
    layers,
    logits,
    penultimate,
    predict,
)
from candling.models.source import ModelSource
from candling.models.spec import ModelSpec, read_spec
from candling.models.storage import build_model, load_model, save_model

__all__ = [
    "Batches",
    "Classifier",
    "Layer",
    "MemoryRanOut",
    "ModelSource",
    "ModelSpec",
    "Preprocessing",
    "answer",
    "batch_size",
    "build_model",
    "check_differentiable",
    "describe",
    "downloaded",
    "evaluating",
    "folder_digest",
    "import_model",
    "input_shape",
    "layers",
    "load_model",
    "log_odds",
    "logits",
    "model_digest",
    "open_model",
    "penultimate",
    "predict",
    "probabilities",
    "read_preprocessing",
    "read_spec",
    "recording",
    "save_model",
    "scores",
    "with_new_head",
]
