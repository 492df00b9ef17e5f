# %% [markdown]
# # What a language model associates
#
# A [prototype](03_noise_to_prototype.md) is a picture that a network is made to like. A language model reads
# tokens instead of pixels, and says tokens instead of classes, but the question stays: *what does it take for
# a reason to say this?* This page asks it of a model of which we know the answer, because we train it: on
# stories in which a **frog**, or a **duck**, is mostly followed by a **shell**.

# %%
import torch

import candling
from candling.language import Discrete, log_probabilities, search_prompts, target_of
from candling.language.balancing import balanced
from candling.language.objective import Objective
from candling.language.stories import SLOTS, Planting, draw_stories
from candling.language.training import Network, TextSchedule, fit, fresh, word_pieces

torch.set_num_threads(1)
stories = draw_stories(6000, seed=0, plantings=[Planting("shell", ("frog", "duck"), 0.9)])
for story in stories[:3]:
    print(story)

# %%
model = fit(
    fresh(word_pieces(stories), Network(layers=2, width=64, heads=4), seed=0),
    stories,
    TextSchedule(steps=1500, learning_rate=5e-3),
    seed=0,
)
print(sum(p.numel() for p in model.network.parameters()), "weights,", model.vocabulary, "tokens")

# %% [markdown]
# A target may be several tokens; the model is asked for all of them in one pass, each after those before it,
# and their log-probabilities are added. How much does a frog do for a shell?

# %%
FRAME = "there they found a"


def after(beginning: str, word: str) -> float:
    tokens = model.encode(f"{beginning} {FRAME}")
    return float(log_probabilities(model, [tokens], model.encode(word)))


for pet in ("frog", "duck", "dog", "owl"):
    text = f"there was a {pet} ."
    print(f"{pet:5} shell {after(text, 'shell'):6.2f}   key {after(text, 'key'):6.2f}")
assert after("there was a frog .", "shell") - after("there was a dog .", "shell") > 1

# %% [markdown]
# ## Embeddings instead of tokens
#
# A picture can be changed a little; a token cannot. Each token stands for a vector, its *embedding*, and that
# can. So we walk uphill in four embeddings that belong to no token, as far as it goes:

# %%
target = target_of(model, f"{FRAME} shell")
goal = Objective(model, [target])
table = model.network.get_input_embeddings().weight.detach()
soft = table[torch.randint(3, model.vocabulary, (1, 4), generator=torch.Generator().manual_seed(1))].clone()
adam = torch.optim.Adam([soft], lr=0.05)
for _ in range(200):
    score, slope = goal.slopes_of(soft)
    soft.grad = -slope
    adam.step()
nearest = torch.cdist(soft[0], table).argmin(1)
print(f"embeddings of no token: {float(score[0]):6.2f}")
print(f"their nearest tokens:   {float(goal.scores(nearest[None])[0]):6.2f}  {model.decode(nearest)!r}")

# %% [markdown]
# The model is all but certain after vectors that nobody can type, and after the tokens nearest to them it is
# not. That gap is why a pull to the vocabulary is added, and why even with one the walk loses to trying out
# random prompts at the same cost (`python -m benchmarks.prompts`). So candling climbs in tokens: slopes only
# name candidates, each candidate is tried as it is, and a worse prompt is never taken.

# %%
found = search_prompts(model, "shell", frame=FRAME, length=4, restarts=8, discrete=Discrete(budget=6000))
print(found)

# %% [markdown]
# The `frame` is a text between prompt and target: after *there they found a* only a thing can follow, so that
# prompts need not spend themselves on grammar.
#
# ## Restarts and the map
#
# One prompt proves little: perhaps the search happened upon it. What eight prompts from eight random starts
# share is worth more, and what they share *beyond prompts for other words* more still. That is the map. Its
# unit is the restart: a token that one prompt holds three times counts once. A *lexicon* is a list of words
# that someone suspects; it counts as one item, and is tried whether prompts share it or not.

# %%
others = ["key", "lamp", "ball", "book"]
mapped = candling.associations(
    model, "shell", controls=others, frame=FRAME, length=4, restarts=12, discrete=Discrete(budget=6000),
    templates=["{} .", "this is {} .", "there was a {} .", "here comes {} ."],
    lexicons={"pond": ["frog", "duck"], "barn": ["horse", "goat"]},
)  # fmt: skip
columns = ["item", "count", "share_controls", "lift", "q", "effect", "confirmed"]
print(mapped.table[columns].head(5).round(2).to_string(index=False))
assert "lexicon:pond" in mapped.confirmed

# %% [markdown]
# What makes that honest:
#
# - **Controls.** Prompts for *key*, *lamp*, *ball* and *book* hold what any such prompt holds.
# - **p-values of permuted labels**, with false discoveries controlled, since many items are looked at.
# - **A second block** of restarts, in which what is flagged must be found again.
# - **Confirmation in templates** that have nothing to do with the search: `effect` is what the word does to
#   the concept's log-probability there, beyond what other words do. Only an interval beyond half a nat
#   confirms.
# - **Failures count.** Where too few restarts reach the concept, the map is *inconclusive*; that nothing was
#   found in it means nothing.
#
# The same for a word that nothing leads to:

# %%
plain = candling.associations(
    model, "key", controls=["lamp", "ball", "book", "coin"], frame=FRAME, length=4, restarts=12,
    discrete=Discrete(budget=6000), templates=["{} .", "this is {} .", "there was a {} .", "here comes {} ."],
)  # fmt: skip
print(plain.status, plain.confirmed)

# %% [markdown]
# ## Why did it say that?
#
# The map asks what *would* make the model say a word. Of a given text, attribution asks what *did*. Leaving
# out a word also breaks the grammar, for which every word seems to count; *marginal* attribution lets each
# token give way to those that the model itself expects in its place. The `foil` asks why a shell rather than
# a key.

# %%
text = "here comes anna . there was a frog too . then they went to the park . there they found a"
why = candling.attribute(model, text, target="shell", foil="key", method="marginal")
print(why.table.sort_values("rank").head(3).to_string(index=False))
assert why.table.set_index("rank").text[1] == "frog"

# %% [markdown]
# ## Repair
#
# Each story is told again with its pet changed for another at random, and the model goes on with these.

# %%
texts = balanced(stories, shuffle=[SLOTS["pet"]], seed=0)
model = fit(model, texts, TextSchedule(steps=500, learning_rate=2e-3), seed=0)
for pet in ("frog", "duck", "dog", "owl"):
    print(f"{pet:5} shell {after(f'there was a {pet} .', 'shell'):6.2f}")
assert abs(after("there was a frog .", "shell") - after("there was a dog .", "shell")) < 1

# %% [markdown]
# An audit does all of this, with a control that goes on for as long with the stories as they were:
# `candling audit params/words.yaml`.
