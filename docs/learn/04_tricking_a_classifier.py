# %% [markdown]
# # Tricking a classifier
#
# A [climb from noise](03_noise_to_prototype.md) shows what a network looks for. The same gradient, followed
# from a *photograph*, shows something else: how little of a picture has to change before the network sees
# another thing in it. We do it by hand first, then as `candling.trick` does.
#
# The network is that of the last page, which was built to know **stripes** and has a weakness that trained
# networks have too, fine **specks**. Now it says how likely it is that a picture has stripes: it is a
# classifier with two classes.

# %%
import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import candling
from candling.vision.adversarial import LinfPGD, Untargeted, smallest_epsilon
from candling.vision.parameterisations import Fourier
from candling.vision.priors import natural_prior

SIDE = 32
NAMES = ("plain", "striped")
PLAIN, STRIPED = 0, 1
random = torch.Generator().manual_seed(0)

place = torch.arange(SIDE).double() - (SIDE - 1) / 2
along = place * torch.cos(torch.deg2rad(torch.tensor(30.0)))
down = place * torch.sin(torch.deg2rad(torch.tensor(30.0)))
stripes = torch.sin(2 * torch.pi * 3 / SIDE * (along + down[:, None]))
specks = torch.randn(1, SIDE, SIDE, generator=random).double()
specks = (specks - F.avg_pool2d(specks, 3, stride=1, padding=1))[0]
weights = stripes + 3 * specks / specks.std()

natural = Fourier(natural_prior((SIDE, SIDE), channels=1), contrast=0.7)
photographs = natural.render(natural.draw(random, 1000).double())
striped = torch.sigmoid(torch.logit(photographs) + 0.7 * stripes)


class Network(torch.nn.Module):
    """Logits (R, 2) of pictures (R, 1, H, W) in [0, 1]."""

    def forward(self, images):
        answers = ((images.double() - 0.5) * weights).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(answers), (answers - 40) / 8], 1)


model = Network()
right = torch.cat([model(photographs).argmax(1) == PLAIN, model(striped).argmax(1) == STRIPED])
print(f"right: {100 * right.double().mean():.0f} % of 2000 photographs")
assert right.double().mean() > 0.9

# %% [markdown]
# Note that the network subtracts the 0.5 itself. Normalisation belongs inside: whoever attacks changes
# *pixels*, and pixels lie between 0 and 1.
#
# ## Down the gradient
#
# Take a photograph without stripes, of which the network knows it. We want it to say *striped*. On the
# [second page](02_input_gradient.md) we asked which change of a house raises its price most; now we ask
# which change of the picture raises log p(striped) most, and take a step, and ask again. That is all.

# %%
photographs = (255 * photographs).round() / 255  # as files hold them
sure = model(photographs).softmax(1)[:, PLAIN]
picture = photographs[(sure - 0.99).abs().argmin()][None]


def probability(some, place):
    return model(some).softmax(1)[0, place].item()


def slope(some, place):
    """The gradient of -log p(place) by the picture."""
    here = some.clone().requires_grad_()
    loss = -model(here).log_softmax(1)[0, place]
    return torch.autograd.grad(loss, here)[0]


moved, steps = picture, 0
while probability(moved, STRIPED) < 0.99:
    moved = (moved - 0.01 * slope(moved, STRIPED)).clamp(0, 1)
    steps += 1
change = moved - picture
print(f"before: striped {probability(picture, STRIPED):.2f}")
print(f"after {steps} steps: striped {probability(moved, STRIPED):.2f}")
print(f"the largest change of a pixel: {255 * change.abs().max():.0f} of 255")
print(f"a typical change of a pixel: {255 * change.abs().mean():.0f} of 255")


# %% Before, the change made visible on grey, after; and what the photograph looks like with clear stripes
def sheet(pictures):
    """Grey pictures (H, W) in [0, 1], side by side and four times as large."""
    row = torch.cat([F.pad(one, (1, 1, 1, 1), value=1.0) for one in pictures], 1)
    image = Image.fromarray((255 * row).round().to(torch.uint8).numpy())
    return image.resize((4 * image.width, 4 * image.height), Image.Resampling.NEAREST)


def visible(change):
    return 0.5 + change / (2 * change.abs().max())


with_stripes = torch.sigmoid(torch.logit(picture.clamp(0.01, 0.99)) + 1.5 * stripes)
sheet([one[0, 0] for one in (picture, visible(change), moved, with_stripes)])

# %% [markdown]
# Nobody would see stripes in the third picture. And nothing about it is special: the network is a sum of many
# pixels times weights, and if each of a thousand pixels moves by a little in just the direction in which it
# counts, the sum moves by a lot. Networks with many layers are, close to a picture, much like such a sum.
#
# ## Within a ball
#
# That tells how to do it better. What a person notices is the *largest* change of a pixel, so let every pixel
# change by the same small amount, ε. Then only the direction of each matters: the **sign** of the gradient.
# After each step, what has gone further than ε is put back. This is projected gradient descent (Madry et al.
# 2018), and the set of pictures within ε of the first is its ball.


# %%
def descend(picture, place, epsilon, steps=40):
    moved = picture
    for _ in range(steps):
        moved = moved - 2.5 * epsilon / steps * slope(moved, place).sign()
        moved = picture + (moved - picture).clamp(-epsilon, epsilon)  # back into the ball
        moved = moved.clamp(0, 1)  # and still a picture
    return moved


reached = {}
for level in range(1, 25):
    reached[level] = probability(descend(picture, STRIPED, level / 255), STRIPED)
enough = min(level for level, p in reached.items() if p >= 0.99)
for level in (1, enough // 2, enough):
    print(f"no pixel changed by more than {level} of 255: striped {reached[level]:.2f}")
assert enough < 255 * change.abs().max()

# %% [markdown]
# ## A picture that can be saved
#
# So far the picture exists only as numbers. A PNG holds 256 levels for each pixel, so that saving it rounds
# every change to whole levels. Changes of less than half a level are gone, and they may have been what it
# took. Here is a photograph that the network is in doubt about.

# %%
logit = model(photographs)[:, STRIPED]
doubtful = photographs[(logit + 0.3).abs().argmin()][None]
faint = descend(doubtful, STRIPED, 0.45 / 255)


def saved(some):
    """Written as PNG, and read back."""
    file = io.BytesIO()
    Image.fromarray((255 * some[0, 0]).round().to(torch.uint8).numpy()).save(file, "PNG")
    return torch.tensor(np.array(Image.open(file)))[None, None].double() / 255


for what, some in {"as it is": doubtful, "changed": faint, "changed and saved": saved(faint)}.items():
    print(f"{what}: {NAMES[model(some).argmax()]}")
assert model(faint).argmax() == STRIPED
assert model(saved(faint)).argmax() == PLAIN

# %% [markdown]
# The way out: let the network see, in every step, the picture *as it would be saved*, and move the
# unrounded one by the gradient found there. Then rounding is part of the attack, and what fooled the network
# is the very file. `candling.trick` does that. It looks for the smallest ε by itself, here for a probability
# of 0.99.

# %%
found = candling.trick(model, picture[0], "striped", names=NAMES)
print(f"no pixel changed by more than {255 * found.epsilon:.0f} of 255")
assert found.done
assert abs(round(255 * found.epsilon) - enough) <= 1

# %% What `found` shows in a notebook, and what found.save("trick") writes beside its PNGs
found.sheet()

# %% [markdown]
# ## How far can a network be relied on?
#
# One picture is an anecdote. Ask of many, each until it is taken for anything else, what the smallest ε is.

# %%
some = photographs[:100]
some = some[model(some).argmax(1) == PLAIN]
goal = Untargeted([PLAIN] * len(some))
smallest = smallest_epsilon(model, some, goal, LinfPGD(epsilon=16 / 255, steps=10))
print(f"half of {len(some)} photographs are lost within {255 * smallest.median():.0f} of 255")
print(f"not lost within 16 of 255: {smallest.unreached}")

# %% [markdown]
# In an audit these are the measurements `attack.success_rate` and `attack.median_epsilon`, towards each other
# class in turn and with intervals, and a policy can bound them. Like every attack it gives an upper bound: a
# better one may need less.
