# %% [markdown]
# # Entanglement
#
# A [prototype](03_noise_to_prototype.md) of a class is what a network looks for when it says so. Does it
# also excite *other* classes? If the prototype of a cherry is half a tomato to the network, then the two
# share what it reads, and it may take one for the other. That is called entanglement, and this page
# measures it in a network of which we know the answer, because we build it.
#
# The network has eight classes. Each has a small template of its own, a coloured texture drawn at random, and
# answers a picture by how well its template fits, anywhere. Two of them are made alike: **tomato** is half
# cherry.

# %%
import torch
import torch.nn.functional as F

import candling
from candling.models import logits
from candling.vision.parameterisations import backgrounds
from candling.vision.priors import natural_prior

NAMES = ("cherry", "tomato", "leaf", "brick", "river", "straw", "coal", "sand")
SIDE, BOX = 40, 13
random = torch.Generator().manual_seed(5)


def unit(texture):
    """Of mean 0 and length 1, so that no template is stronger than another."""
    centred = texture - texture.mean((1, 2, 3), keepdim=True)
    return centred / centred.flatten(1).norm(dim=1)[:, None, None, None]


textures = torch.randn(len(NAMES), 3, 4, 4, generator=random)
templates = unit(F.interpolate(textures, size=BOX, mode="bicubic"))
templates[1] = unit(templates[:1] + templates[1:2])[0]


class Network(torch.nn.Module):
    def forward(self, images):
        """Logits (N, 8): how well each template fits in the ten places where it fits best."""
        x = images - 0.5
        contrast = F.conv2d(x.square(), torch.ones(1, 3, BOX, BOX))
        fits = F.conv2d(x, templates).relu().square() / (contrast + 1)
        return 20 * fits.flatten(2).topk(10).values.mean(2)


network = Network()

# %% [markdown]
# ## Logits say nothing yet
#
# `candling.prototypes` makes two pictures that excite each class. These are the logits of the cherries:

# %%
made = candling.prototypes(network, seeds=2, steps=32, size=SIDE, names=NAMES)
answers = logits(network, made.images)
for name, value in zip(NAMES, answers[:2].mean(0), strict=True):
    print(f"{name:7} {value:6.2f}")

# %% [markdown]
# Is that much? All of them may be larger for a picture of strong contrast, and some may be large for any
# picture. So a logit is held against what it usually is: first subtract the mean of all classes in the
# picture (what lifts all of them lifts none), then count in standard deviations from the mean over ordinary
# pictures. That is `z`, and it stays the same when logits are scaled or shifted.

# %%
prior = natural_prior((SIDE, SIDE))
ordinary = logits(network, backgrounds(prior, random, 400))


def centred(values):
    return values - values.mean(1, keepdim=True)


z = (centred(answers) - centred(ordinary).mean(0)) / centred(ordinary).std(0)
for name, value in zip(NAMES, z[:2].mean(0), strict=True):
    print(f"{name:7} {value:6.1f}")

# %% [markdown]
# The tomato stands out. As a part of what the cherry's prototypes do for the cherry itself, that is
#
#     e(cherry → tomato) = mean over prototypes of  z_tomato / z_cherry
#
# 1 would mean that the network cannot tell a prototypical cherry from a tomato.

# %%
e = (z[:2] / z[:2, [0]]).mean(0)
print(f"e(cherry → tomato) = {e[1]:.2f}, e(cherry → brick) = {e[3]:.2f}")

# %% [markdown]
# ## All pairs
#
# `candling.entanglement` does that for all pairs, and orders the classes so that those that are close stand
# together. Red excites, blue suppresses.
#
# The pictures that it is given here have a class each: faint ordinary ones into which a template was pasted.
# The network is wrong about some, and that will tell whether entanglement means anything.

# %% Rows are prototypes, columns are what they excite
labels = torch.arange(len(NAMES)).repeat(60)
images = 0.5 + 0.3 * (backgrounds(prior, random, len(labels)) - 0.5)
for image, label in zip(images, labels.tolist(), strict=True):
    top, left = torch.randint(SIDE - BOX, (2,), generator=random).tolist()
    image[:, top : top + BOX, left : left + BOX] += templates[label]
images = images.clamp(0, 1)

found = candling.entanglement(network, seeds=2, steps=32, names=NAMES, pictures=images, labels=labels)
found.heatmap()

# %%
print(found.pairs.head(4).to_string(index=False, float_format=lambda value: f"{value:.3f}"))

# %% [markdown]
# `mutual` is the smaller of both directions: shared features excite both ways. One way alone is common. A
# picture that was optimised for one thing is a strange picture, and strange pictures excite some class or
# other.
#
# ## More than chance?
#
# Some pair is always the strongest. Is it stronger than unrelated classes are? What unrelated classes do, the
# network shows itself: how much do cherry and tomato have with each of the *other* classes? These twelve
# values have a mean and a spread, and `p` is how often one more of their kind would lie as far out. Since all
# 28 pairs are asked, some are small by chance; `q` is what `p` is worth after that (Benjamini and Hochberg).
# Of pairs with `q` up to 0.05, one in twenty is false on average.
#
# Note what is *not* asked: whether the two seeds agree. Two pictures of a cherry always agree about
# tomatoes. They say how sure we can be of *this* number, but not how large it would be for two classes that
# have nothing in common.

# %%
c, k = found.found.significant()[0]
print(f"significant: {NAMES[c]} and {NAMES[k]}, q = {found.found.pair_q[c, k]:.4f}")
assert {NAMES[c], NAMES[k]} == {"cherry", "tomato"}
assert len(found.found.significant()) == 1

# %% [markdown]
# ## Does it mean anything?
#
# Prototypes are pictures that nobody takes. If entanglement is about the network and not about them, then
# entangled classes are also confused in pictures that people do take.

# %%
said = logits(network, images).argmax(1)
for name, other in (("tomato", "cherry"), ("cherry", "tomato"), ("tomato", "leaf"), ("tomato", "coal")):
    own, taken = NAMES.index(name), NAMES.index(other)
    print(f"{name} taken for {other}: {int((said[labels == own] == taken).sum())} of 60")
value, low, high, _ = found.confusion
print(f"rank correlation of entanglement and confusion: {value:.2f} [{low:.2f}, {high:.2f}]")

# %% [markdown]
# Tomatoes are taken for cherries. The rank correlation, which is over all 28 pairs, says nothing here: 27 of
# them have nothing in common, so that their order is noise, and its interval tells so. In networks that were
# trained there is more to rank: `python -m benchmarks.entanglement` trains one on twelve classes, of which
# four pairs were made to look alike. They rank first, and the correlation is 0.46 [0.15, 0.66].
#
# An audit does all this by itself, and adds what would be *surprising*: pairs that are entangled although
# neither their names nor the weights of the head nor a hierarchy of yours say that they belong together.
