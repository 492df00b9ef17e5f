# %% [markdown]
# # Feature visualization
#
# What does a network look for? Start from noise and change the picture step by step, so that one of the
# network's numbers grows: a class, a channel, a neuron. The picture that this leads to is a *feature
# visualization*; where the number is the logit of a class, it is a *prototype*.
#
# That is easily done, and at first it fails: what excites a network the most is noise. This page adds the
# ingredients that make pictures of it, one after another, each time for the same classes and from the same
# seed. At the end stands the question that decides what all this is good for: which pictures to believe.
#
# ([docs/learn](learn/README.md) tells where the gradients come from. Most of the ingredients are those of
# Olah, Mordvintsev and Schubert, "Feature Visualization", Distill 2017.)
#
# ## A network
#
# MobileNetV2 knows the thousand classes of ImageNet. Normalisation is part of a model in `candling`, so that
# it takes pictures in [0, 1].

# %%
import copy
import os
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torchvision.transforms.functional import to_tensor

import candling
from candling.models import ModelSource, open_model, recording
from candling.vision.climbing import FOURIER, MACO
from candling.vision.gallery import contact_sheet
from candling.vision.objectives import channel, direction, hybrid, layer, logit, neuron
from candling.vision.priors import natural_prior
from candling.vision.scenes import Scene, draw

weights = Path(os.environ.get("CANDLING_ASSETS", "../shared/assets"), "mobilenet_v2")
if weights.is_dir():
    source = ModelSource(
        "torchvision",
        "mobilenet_v2",
        weights=str(weights / "model.safetensors"),
        classes=str(weights / "classes.json"),
        preprocessing=str(weights / "preprocessing.json"),
    )
else:  # torchvision's own, a download of 14 MB
    source = ModelSource("torchvision", "mobilenet_v2", weights="IMAGENET1K_V2")
model, _ = open_model(source)

SIDE = 192
CLASSES = {"zebra": 340, "flamingo": 130, "banana": 954}

# %% [markdown]
# Three classes will do: a texture, a shape and a colour. `compare` makes a prototype of each for several
# settings. The number below a picture is the probability of the class, the mean over transforms that no climb
# has used: mirrored, blurred, noisy, darker, sheared and so on.


# %%
def page(images, captions, columns):
    """A contact sheet, in few enough colours for a small file."""
    return contact_sheet(images, captions, columns=columns, side=SIDE).quantize(256)


def compare(variants, classes=("zebra", "flamingo")):
    """One prototype for each variant (its settings, or its settings and its prior) and class."""
    images, captions = {}, {}
    for label, variant in variants.items():
        settings, prior = variant if isinstance(variant, tuple) else (variant, "natural")
        chosen = [CLASSES[name] for name in classes]
        one_each = replace(settings, seeds=1)
        found = candling.prototypes(model, chosen, settings=one_each, prior=prior, size=SIDE)
        for name, image, probability in zip(classes, found.images, found.table["probability"], strict=True):
            opaque = F.pad(image, (0, 0, 0, 0, 0, 4 - len(image)), value=255)  # where it has no opacity
            images[label, name] = opaque
            captions[label, name] = f"{label}\n{name}: {probability:.2f}"
    shown = list(images)
    if len(variants) > len(classes):  # a row is a class
        shown.sort(key=lambda one: classes.index(one[1]))
    columns = max(len(variants), len(classes))
    return page(torch.stack([images[one] for one in shown]), [captions[one] for one in shown], columns)


# %% [markdown]
# ## Pixels alone
#
# First with nothing: each value of each pixel goes where the logit grows. Everything that `candling` does by
# itself is switched off, and of what is known of photographs (the *prior*) the colours are taken out, so that
# red, green and blue have nothing to do with each other.

# %% Pixels alone
bare = replace(
    FOURIER,
    parameterisation="pixels", contrast=0.05, steps=100, starts=1, robustness="none", growth=((1.0, 1.0),),
    fall=0.0, limit=None, total_variation=0.0, high_frequency=0.0, l1=0.0, l2=0.0, blur=0.0, diversity=0.0,
)  # fmt: skip
natural = natural_prior((SIDE, SIDE))
separate = replace(natural, colours=natural.colours.norm(dim=1).mean() * torch.eye(3))

compare({"pixels": (bare, separate)}, classes=list(CLASSES))

# %% [markdown]
# Noise. Yet the climb has not failed: the network takes it for a zebra, a flamingo and a banana, often even
# after the picture was mirrored or darkened. It was asked for any picture, not for a likely one, and among
# all pictures those that a network never saw, and is wrong about, are by far the most.
#
# ## A penalty for what is fine
#
# Photographs are smooth: most neighbours are alike. So something is taken off for differences between
# neighbours (`total_variation`), or for power in the upper half of the frequencies (`high_frequency`). Both
# are 1 for a photograph, whatever its size, and with a weight of 1 a picture that has as much of it as a
# photograph is pulled back as strongly as the class pulls it up.

# %% Pixels with a penalty
compare(
    {
        "no penalty": (bare, separate),
        "high_frequency 1": (replace(bare, high_frequency=1.0), separate),
        "total_variation 0.3": (replace(bare, total_variation=0.3), separate),
        "total_variation 1": (replace(bare, total_variation=1.0), separate),
    }
)

# %% [markdown]
# The finest grain is gone, lines become thicker, and with more of a penalty the picture becomes fainter. It
# does not become a flamingo: a penalty says what a picture must not be, and not what it should be.
#
# ## Colours that go together
#
# In photographs the three channels rise and fall together. What differs most from place to place is how
# bright it is, then whether it is rather blue or red, and least whether it is rather green or magenta.
# *Decorrelated* colours are these three, each in units of how much photographs have of it. A step is as long
# in all of them, and so mostly makes things brighter or darker.

# %% Red, green and blue by themselves, and decorrelated
smooth = replace(bare, total_variation=0.3)
compare({"red, green, blue": (smooth, separate), "decorrelated": smooth}, classes=list(CLASSES))

# %% [markdown]
# The motley of green and magenta has gone. It is noise still, but it is coloured as photographs are.
#
# ## Waves
#
# A picture is also a sum of waves, and photographs have far more of the coarse ones than of the fine: their
# magnitudes fall as one over the frequency. `fourier` moves waves instead of pixels, each in units of how
# much a photograph has of it. Nothing is forbidden by that, but what is coarse comes first. `fall` lets
# magnitudes fall faster still.

# %% Pixels and waves
waves = replace(bare, parameterisation="fourier", contrast=FOURIER.contrast)
compare(
    {
        "pixels": bare,
        "waves": waves,
        "waves, fall 0.25": replace(waves, fall=0.25),
        "waves, fall 0.5": replace(waves, fall=0.5),
    }
)

# %% [markdown]
# No other ingredient changes as much. There is light and shade, there are surfaces, and the flamingo has its
# colour. What is missing are things: stripes and feathers lie over each other without a body. The faster
# magnitudes fall, the larger shapes become and the more of the grain is lost.
#
# ## Seen through small movements
#
# What only one exact arrangement of pixels excites does not survive a shift or a turn. So the network sees
# the picture turned, magnified and shifted, by another amount in each step. How far has a name.

# %% Transformation robustness
steady = replace(waves, fall=FOURIER.fall)
compare({name: replace(steady, robustness=name) for name in ("none", "s", "m", "l", "xl")})

# %% [markdown]
# Scraps join: stripes run on and lie on something round, feathers make a body, and the probability under
# transforms that were never used rises. But movements also lend the picture something that the network has
# not asked for: what looks the same when it is turned and magnified, above all what is round. The further
# pictures are moved, the more so.
#
# ## Growth, and what it costs
#
# Steps on a small picture are cheap. So most steps are taken on one, and what it shows is carried over to the
# next size. And since much depends on where a climb begins, it can begin at the best of several draws, those
# that climbed highest in a few steps.

# %% Growth
moved = replace(steady, robustness=FOURIER.robustness)
variants = {
    "full size": moved,
    "grown": replace(moved, growth=FOURIER.growth),
    "grown, best of 4": replace(moved, growth=FOURIER.growth, starts=4),
}
for label, settings in variants.items():
    begun = time.perf_counter()
    candling.prototypes(model, CLASSES.values(), settings=replace(settings, seeds=1), size=SIDE)
    print(f"{label}: {(time.perf_counter() - begun) / len(CLASSES):.1f} seconds a picture")

compare(variants, classes=list(CLASSES))

# %% [markdown]
# Growing saves time, and it does more than that. A picture that begins small begins with its largest shapes:
# there is rather one animal or one bunch than pieces of several. Details are left with fewer steps, and are
# coarser.
#
# ## Not too much contrast
#
# A climb that goes on goes on to black and white: more contrast excites the network more. A black pixel shows
# nothing, and has no gradient either. `limit` holds the contrast to a multiple of that of photographs.

# %% A limit to contrast
unlimited = replace(FOURIER, limit=None)
compare({"no limit": unlimited, "limit 1.4": replace(FOURIER, limit=1.4)}, classes=list(CLASSES))

# %% [markdown]
# Of these ingredients `candling`'s default is made. It is the same for all networks and sizes, and
# `candling.prototypes(model)` needs nothing else.
#
# ## Several seeds, and keeping them apart
#
# A class is seldom one thing. Another seed begins with other noise and may end at another side of the class,
# or at the same one again. `diversity` pushes the seeds of a class apart, in what the network sees in them.

# %% Four seeds, with more and more diversity
images, captions = [], []
for diversity in (0.0, 0.5, 2.0):
    found = candling.prototypes(model, CLASSES["flamingo"], seeds=4, size=SIDE, diversity=diversity)
    images.append(found.images)
    rows = found.table[["seed", "probability"]].itertuples(index=False)
    captions += [f"diversity {diversity:g}\nseed {seed}: {probability:.2f}" for seed, probability in rows]
page(torch.cat(images), captions, columns=4)

# %% [markdown]
# Seeds differ by themselves. A little diversity changes poses and parts. With much of it the numbers tell
# that something is lost: what is pushed away from all other flamingos is at last pushed away from the class.
#
# ## What need not be there
#
# With `alpha` a picture has opacity too, and the network sees it before a background that changes from step
# to step. What makes no difference can become transparent; the checkerboard is what shows through.

# %% With opacity
compare({"opaque": FOURIER, "alpha": replace(FOURIER, alpha=True)}, classes=list(CLASSES))

# %% [markdown]
# Holes open where the background was, and most of the animal or the fruit stays. They are ragged holes: read
# them as what matters less, not as an outline.
#
# ## Only the phase
#
# MACO (Fel et al. 2023, arXiv 2306.06805) goes further than `fourier`. The magnitude of each wave is that of
# photographs and stays so; only the phase is moved, which says where things are. Nothing can be overdone, and
# what the network does not care about stays the noise that it was.

# %% MACO
compare({"fourier": FOURIER, "maco": MACO}, classes=list(CLASSES))

# %% [markdown]
# MACO's pictures are finely drawn all over, since a photograph's fine waves have to go somewhere. Its animals
# are smaller, and less is decided by large areas of one colour.
#
# # Not only classes
#
# All this serves any number inside the network. `candling.layers` lists what there is to name, and
# `candling.visualize` climbs it.

# %%
for one in candling.layers(model):
    if one.name.count(".") == 1:
        print(f"{one.name:13} {one.kind:20} {one.output_shape}")

# %% [markdown]
# A *channel* is the mean of one feature over all places, which fills the picture with it. Here is the channel
# that happens to be number 3, in layers from the first to the last.

# %% Channels of early and of late layers
depths = ("features.2", "features.4", "features.7", "features.11", "features.14", "features.17")
found = candling.visualize(model, [channel(name, 3) for name in depths], seeds=1, size=SIDE)
page(found.images, found.captions, columns=3)

# %% [markdown]
# First there are lines and grids of two colours, then weaves and textures of many, last pieces of things,
# for which there are no longer simple words. A *neuron* is the same feature at one place, by default in the
# middle; around what it sees, nothing is asked for.

# %% A channel and its neuron in the middle, from two seeds each
both = [channel("features.11", 3), neuron("features.11", 3)]
found = candling.visualize(model, both, seeds=2, size=SIDE)
page(found.images, found.captions, columns=4)

# %% [markdown]
# A *layer* is everything at once: whatever it sees in a picture, it is to see more of (DeepDream). That
# begins with a picture, here a drawn one, and with short steps, or little of it would be left.

# %% A drawing, and what three layers make of it
drawing = to_tensor(draw(Scene(3, "tank", "grass"), size=224).image)
gentle = replace(
    FOURIER, seeds=1, steps=30, learning_rate=0.1, growth=((1.0, 1.0),), robustness="s", limit=None
)
dreams = [
    candling.visualize(model, layer(name), start=drawing, settings=gentle)
    for name in ("features.4", "features.9", "features.14")
]
images = torch.cat([(255 * drawing[None]).byte(), *[found.images for found in dreams]])
page(images, ["the drawing", *[found.table["objective"].item() for found in dreams]], columns=4)

# %% [markdown]
# A *direction* is a mixture of channels, and any vector will do. Here it leads from what the prototypes of
# our three classes have in common, in one layer, to what those of one class have.

# %% From what three classes have in common to each of them
made = candling.prototypes(model, CLASSES.values(), seeds=2, size=SIDE)
with recording(model, ["features.14"]) as seen, torch.inference_mode():
    model(made.images / 255)
features = seen["features.14"].mean((2, 3)).view(len(CLASSES), 2, -1).mean(1)
towards = F.normalize(features - features.mean(0), dim=1)
found = candling.visualize(model, [direction("features.14", one) for one in towards], seeds=1, size=SIDE)
page(found.images, [f"towards {name}" for name in CLASSES], columns=3)

# %% [markdown]
# What this layer has of a class are its surfaces: stripes, plumage, peel.
#
# Objectives add up, with weights that mean what they say. A *hybrid* is several classes at once; an
# *antitype* is what speaks against a class the most.

# %% Two classes at once, one but not the other, and what speaks against a class
zebra, flamingo = logit(CLASSES["zebra"]), logit(CLASSES["flamingo"])
asked = {
    "zebra + flamingo": hybrid([CLASSES["zebra"], CLASSES["flamingo"]]),
    "zebra - flamingo": zebra - flamingo,
    "flamingo - zebra": flamingo - zebra,
    "-zebra": -zebra,
    "-flamingo": -flamingo,
}
found = candling.visualize(model, list(asked.values()), seeds=1, size=SIDE)
page(found.images, list(asked), columns=5)

# %% [markdown]
# The antitypes are of no one thing. There are a thousand classes, and whatever speaks for another may speak
# against this one.
#
# # Which to believe
#
# An optimiser always brings home a picture and a high logit, also from a network that has learned nothing. So
# pictures are asked what the climb did not ask (formulas in `candling.vision.trust`):
#
# - Is the class still there under transforms that were never used? (`probability` is their mean)
# - Do other seeds end at the same features? (`agreement`)
# - Do the layers work on it as on photographs of the class? (`path`, with `pictures=` and `labels=`)
# - Does a second network see the class in it? (`transfer`, with `second=`)
#
# `trust` sums them up. It goes from 0, which is chance, to 1, and what one of them denies none of the others
# makes up for: a single unseen transform under which the class is gone is enough for 0.

# %%
columns = ["name", "seed", "probability", "agreement", "trust"]
found = candling.prototypes(model, CLASSES.values(), seeds=2, size=SIDE)
print(found.table[columns].to_string(index=False, float_format="%.2f"))
print(*found.notes, sep="\n")

# %% [markdown]
# Pixels alone, the noise of the beginning:

# %%
two_each = replace(bare, seeds=2)
found = candling.prototypes(model, CLASSES.values(), settings=two_each, prior=separate, size=SIDE)
print(found.table[columns].to_string(index=False, float_format="%.2f"))

# %% [markdown]
# And the same network with its weights shuffled, layer by layer. They are as large as before and know
# nothing:

# %%
shuffled = copy.deepcopy(model)
generator = torch.Generator().manual_seed(0)
for parameter in shuffled.parameters():
    order = torch.randperm(parameter.numel(), generator=generator)
    parameter.data = parameter.data.flatten()[order].view_as(parameter)
found = candling.prototypes(shuffled, CLASSES.values(), seeds=2, size=SIDE)
print(found.table[columns].to_string(index=False, float_format="%.2f"))

# %% What a network with shuffled weights has to show of zebras, flamingos and bananas
page(found.images, found.captions, columns=6)

# %% [markdown]
# This is what the method gives when there is nothing to be seen: clouds with light, shade and colours, all of
# it lent by the prior. Keep them in mind when a picture seems to show something.
#
# The clouds and the noise have next to no trust, and the prototypes of the default have much. The note above
# says what it does not rest on. Give it photographs: adversarial noise can hold under every transform and
# agree with itself, and then it is its path through the layers that gives it away.
#
# And trust answers one question only, whether the network really works like that on such a picture. What the
# picture *means* is for people to say, and where that matters it is a suspicion, which a test has to confirm.
# [The tank story](tank-audit.md) is an example of one that was.
