# %% [markdown]
# # Gallery of evidence
#
# Which parts of a picture a network uses, and how little of a picture has to change before it sees something
# else. Drawn by `python docs/learn/render.py docs/evidence.py`, with the defaults of `candling.isolate` and
# `candling.trick`; the photographs and weights are those of `CANDLING_ASSETS`. The
# [gallery of prototypes](gallery.md) shows what the same networks look for.
#
# ## Dishes
#
# MobileNetV2 with a new head for five dishes, which `dvc repro models/food/dvc.yaml` trains. For each
# photograph the evidence for the two dishes that the network finds most likely, and for *waffles*, whatever
# the photograph shows; faded to white where nothing speaks for the dish. Below each stands the dish, and how
# likely the network finds it, and how faithful the map is: insertion minus deletion.
#
# The photographs may not be passed on, so that this page shows their outlines, with evidence for the dish in
# red and against it in blue; the sheets in colour are written to `.candling/gallery`.

# %%
import os
from pathlib import Path

import torch
import torch.nn.functional as F

import candling
from candling.models import ModelSource, open_model
from candling.vision.gallery import contact_sheet
from candling.vision.isolation.resampling import smoothed

assets = Path(os.environ.get("CANDLING_ASSETS", "../shared/assets"))
dishes = open_model("models/food/model")[0]
test = assets / "food5_64" / "test"
chosen = [
    ("frozen_yogurt", 6),  # berries
    ("frozen_yogurt", 16),  # a wafer
    ("waffles", 5),  # under berries
    ("waffles", 7),  # under fruit
    ("ice_cream", 5),  # on a waffle
]
photographs = [sorted((test / dish).iterdir())[place] for dish, place in chosen]
in_colour = Path(".candling/gallery")


def outlines(images):
    """Dark lines on white where uint8 pictures (N, 3, H, W) have edges: float (N, 1, H, W) in [0, 1]."""
    grey = F.avg_pool2d(images.float().mean(1, keepdim=True) / 255, 3, 1, 1)
    across, down = (grey - grey.roll(2, dim) for dim in (2, 3))
    strength = (across.abs() + down.abs())[:, :, 3:-3, 3:-3]
    return 1 - 0.7 * F.pad((4 * strength).clamp(0, 1), (3, 3, 3, 3))


def painted(lines, evidence):
    """Outlines (1, H, W) with evidence (H, W): red for, blue against, smoothed for the eye."""
    evidence = smoothed(evidence[None, None], 0.03)[0, 0]
    much = evidence / evidence.abs().max()
    heat = torch.stack([1 + much.clamp_max(0), 1 - much.abs(), 1 - much.clamp_min(0)])
    return (255 * lines * heat).round().to(torch.uint8)


# %% Outlines of photographs, and what speaks for and against waffles and the two likeliest dishes
found = candling.isolate(dishes, photographs, ["waffles"], top=2)
found.save(in_colour / "dishes")
pages = []
for lines, maps in zip(outlines(found.images), found.found.maps, strict=True):
    pages += [(255 * lines).round().to(torch.uint8).expand(3, -1, -1), *(painted(lines, one) for one in maps)]
contact_sheet(torch.stack(pages), found.captions, columns=4, side=160)

# %% [markdown]
# ## A fish that is a volcano
#
# A photograph of a goldfish, changed so little that nobody sees it, which MobileNetV2 takes for a volcano. In
# the middle the change, amplified. Success is judged on the picture as it is saved and read back.

# %%
source = ModelSource(
    "torchvision",
    "mobilenet_v2",
    weights=str(assets / "mobilenet_v2" / "model.safetensors"),
    classes=str(assets / "mobilenet_v2" / "classes.json"),
    preprocessing=str(assets / "mobilenet_v2" / "preprocessing.json"),
)
mobilenet, _ = open_model(source)
tricked = candling.trick(mobilenet, assets / "photos" / "0001.jpg", "volcano")
print(f"no pixel changed by more than {255 * tricked.epsilon:.0f} of 255")
assert tricked.done

tricked.save(in_colour / "volcano")

# %% The outline of the photograph, the change made visible, and the outline of the picture that is a volcano
before, noise, after = tricked.images
drawn = [
    (255 * one).round().to(torch.uint8).expand(3, -1, -1) for one in outlines(torch.stack([before, after]))
]
contact_sheet(torch.stack([drawn[0], noise, drawn[1]]), tricked.captions, columns=3, side=224)
