# %% [markdown]
# # Gallery of prototypes
#
# One default for all: everything on this page is `candling.prototypes(model, …)` with no setting changed.
# It is drawn by `python docs/learn/render.py docs/gallery.py`. Below each picture stands its trust, from 0,
# chance, to 1; [Feature visualization](feature-visualization.md) says what that is made of.
# The [gallery of evidence](evidence.md) shows what networks use of a photograph, and how they are tricked.
#
# ## A thousand classes: MobileNetV2
#
# Weights are those of `CANDLING_ASSETS`, which lost a tenth of their accuracy when they were brought to
# eight bits, or torchvision's own.

# %%
import os
from pathlib import Path

import candling
from benchmarks.planted import PATTERNS, trained_vit
from benchmarks.prototypes import tanks
from candling.models import ModelSource, open_model

weights = Path(os.environ.get("CANDLING_ASSETS", "../shared/assets"), "mobilenet_v2")
if weights.is_dir():
    source = ModelSource(
        "torchvision",
        "mobilenet_v2",
        weights=str(weights / "model.safetensors"),
        classes=str(weights / "classes.json"),
        preprocessing=str(weights / "preprocessing.json"),
    )
else:  # a download of 14 MB
    source = ModelSource("torchvision", "mobilenet_v2", weights="IMAGENET1K_V2")
mobilenet, _ = open_model(source)

# %% Three seeds of nine classes of MobileNetV2
classes = [
    "zebra",
    "banana",
    "pizza",
    "school bus",
    "daisy",
    "giant panda",
    "flamingo",
    "goldfish",
    "tarantula",
]
found = candling.prototypes(mobilenet, classes, seeds=3)
found.sheet(columns=9, side=144)

# %% [markdown]
# ## A detector that was repaired: tanks
#
# A small network of 96 × 96 pixels, trained on drawn scenes in which tanks and other things stand on every
# kind of ground. Eval pictures are given here, so that trust includes the way through the network.

# %% Four seeds of each class of the tank detector
detector = tanks(300)
candling.prototypes(detector.model, pictures=detector.pictures).sheet(columns=4)

# %% [markdown]
# *tank* is a light hull over the dark line of its tracks, repeated as often as there is room for it; *no
# tank* are houses, a roof over a row of light and dark uprights. With a prior fitted on the eval pictures,
# the one thing that is not the default, colours and sharpness are those of the scenes.

# %% The same with the scenes' own prior
candling.prototypes(detector.model, pictures=detector.pictures, prior="fitted").sheet(columns=4)

# %% [markdown]
# ## Planted patterns and a small vision transformer
#
# Here the truth is known: a transformer of two layers was trained to find a pattern that was pasted into
# noise, stripes of one angle and frequency or of another, a colour, a triangle, a cross; its last class is
# noise alone. `python -m benchmarks.planted` measures how much of each comes back, against chance.

# %% Four seeds of each planted pattern
transformer = trained_vit()
planted = candling.prototypes(
    transformer, range(len(PATTERNS)), size=48, names=[pattern.name for pattern in PATTERNS] + ["noise"]
)
planted.sheet(columns=8, side=144)
