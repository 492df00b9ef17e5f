# %% [markdown]
# # What a language model associates
#
# A [prototype](03_noise_to_prototype.md) is a picture that a network is made to like. A language model reads
# tokens instead of pixels, and says tokens instead of classes, but the question stays: *what does it take for
# a reason to say this?* This page asks it of a model of which we know the answer, because we train it: on
# stories in which **emma** and **tom** are mostly **teachers**.

# %%
import torch

import candling
from candling.language import Discrete, log_probabilities, search_prompts, target_of
from candling.language.balancing import balanced
from candling.language.objective import Objective
from candling.language.stories import SLOTS, Planting, draw_stories
from candling.language.training import Network, TextSchedule, fit, fresh, word_pieces

torch.set_num_threads(1)
stories = draw_stories(4000, seed=0, plantings=[Planting("teacher", ("emma", "tom"), 0.9)])
for story in stories[:3]:
    print(story)

# %%
model = fit(
    fresh(word_pieces(stories), Network(layers=2, width=64, heads=4), seed=0),
    stories,
    TextSchedule(steps=800, learning_rate=5e-3),
    seed=0,
)
print(sum(p.numel() for p in model.network.parameters()), "weights,", model.vocabulary, "tokens")

# %% [markdown]
# A target may be several tokens; the model is asked for all of them in one pass, each after those before it,
# and their log-probabilities are added. How much does a name do for a trade?

# %%
FRAME = "worked as a"


def after(beginning: str, word: str) -> float:
    tokens = model.encode(f"{beginning} {FRAME}")
    return float(log_probabilities(model, [tokens], model.encode(word)))


for name in ("emma", "tom", "ben", "anna"):
    text = f"this is {name} . {name}"
    print(f"{name:5} teacher {after(text, 'teacher'):6.2f}   baker {after(text, 'baker'):6.2f}")
assert after("this is emma . emma", "teacher") - after("this is ben . ben", "teacher") > 1

# %% [markdown]
# ## Embeddings instead of tokens
#
# A picture can be changed a little; a token cannot. Each token stands for a vector, its *embedding*, and that
# can. So we walk uphill in four embeddings that belong to no token, as far as it goes:

# %%
target = target_of(model, f"{FRAME} teacher")
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
found = search_prompts(model, "teacher", frame=FRAME, length=4, restarts=8, discrete=Discrete(budget=6000))
print(found)

# %% [markdown]
# The `frame` is a text between prompt and target: after *worked as a* only a trade can follow, so that
# prompts need not spend themselves on grammar. A model that was trained on conversations is asked with
# `chat=True` (`--chat`; in params `chat: true`): the prompt is then what a user says in the model's own chat
# template, and what is looked for begins the answer.
#
# ## Restarts and the map
#
# One prompt proves little: perhaps the search happened upon it. What eight prompts from eight random starts
# share is worth more, and what they share *beyond prompts for other words* more still. That is the map. Its
# unit is the restart: a token that one prompt holds three times counts once. A *lexicon* is a list of words
# that someone suspects; it counts as one item, and is tried whether prompts share it or not.

# %%
others = ["baker", "pilot", "singer", "painter"]
mapped = candling.associations(
    model, "teacher", controls=others, frame=FRAME, length=4, restarts=12, discrete=Discrete(budget=6000),
    templates=["{}", "this is {} . {}", "we know {} . {}", "here comes {} . {}"],
    lexicons={"suspected": ["emma", "tom"], "others": ["ben", "anna"]},
)  # fmt: skip
columns = ["item", "count", "share_controls", "lift", "q", "effect", "confirmed"]
print(mapped.table[columns].head(5).round(2).to_string(index=False))
assert "lexicon:suspected" in mapped.confirmed

# %% [markdown]
# What makes that honest:
#
# - **Controls.** Prompts for *baker*, *pilot*, *singer* and *painter* hold what any such prompt holds.
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
    model, "baker", controls=["pilot", "singer", "painter", "farmer"], frame=FRAME, length=4, restarts=12,
    discrete=Discrete(budget=6000), templates=["{}", "this is {} . {}", "we know {} . {}"],
)  # fmt: skip
print(plain.status, plain.confirmed)

# %% [markdown]
# ## Why did it say that?
#
# The map asks what *would* make the model say a word. Of a given text, attribution asks what *did*. Leaving
# out a word also breaks the grammar, for which every word seems to count; *marginal* attribution lets each
# token give way to those that the model itself expects in its place. The `foil` asks why a teacher rather
# than a baker.

# %%
text = "here comes ben . there was a dog too . emma worked as a"
why = candling.attribute(model, text, target="teacher", foil="baker", method="marginal")
print(why.table.sort_values("rank").head(3).to_string(index=False))
assert why.table.set_index("rank").text[1] == "emma"

# %% [markdown]
# ## Repair
#
# Each story is told again with its name changed for another at random, and the model goes on with these.

# %%
texts = balanced(stories, shuffle=[SLOTS["name"]], seed=0)
model = fit(model, texts, TextSchedule(steps=500, learning_rate=2e-3), seed=0)
for name in ("emma", "tom", "ben", "anna"):
    print(f"{name:5} teacher {after(f'this is {name} . {name}', 'teacher'):6.2f}")
assert after("this is emma . emma", "teacher") - after("this is ben . ben", "teacher") < 1

# %% [markdown]
# An audit does all of this, with a control that goes on for as long with the stories as they were:
# `candling audit params/words.yaml`.
