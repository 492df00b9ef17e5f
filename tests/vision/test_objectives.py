"""Objectives against formulas written out row by row, their arithmetic, their text, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from transformers import ViTConfig, ViTForImageClassification

from candling.errors import ModelError, ParamsError
from candling.models import Classifier, ModelSpec, build_model, recording
from candling.vision.objectives import (
    Objective,
    channel,
    check,
    direction,
    evaluate,
    head,
    hybrid,
    layer,
    logit,
    margin,
    neuron,
    parse,
    place_named,
    probability,
    region,
    token,
)

MASK = torch.zeros(8, 12)
MASK[2:4, 3:9] = 1
VECTOR = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0, 3.0])
CLASSES = ("zebra", "giant panda", "crane", "crane", "7", "a]b")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(rows: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Scores, and layers: maps of 6 channels 4 x 5, 7 tokens of 6 units, 6 units."""
    found = {
        "maps": noise(rows, 6, 4, 5),
        "tokens": noise(rows, 7, 6, seed=1),
        "units": noise(rows, 6, seed=2),
    }
    return noise(rows, 6, seed=3), found


# Objective, and the same of one row's scores (K,) and activations, without the axis of images.
Row = Callable[[Tensor, Mapping[str, Tensor]], Tensor]
FLAT: dict[str, tuple[Objective, Row]] = {
    "logit": (logit(3), lambda z, a: z[3]),
    "margin": (margin(2), lambda z, a: z[2] - max(z[k] for k in (0, 1, 3, 4, 5))),
    "probability": (probability(1), lambda z, a: z.softmax(0)[1].log()),
    "hybrid": (hybrid([0, 4]), lambda z, a: z[0] + z[4]),
    "neuron": (neuron("maps", 5), lambda z, a: a["maps"][5, 2, 2]),
    "neuron at": (neuron("maps", 1, 3, 0), lambda z, a: a["maps"][1, 3, 0]),
    "neuron of units": (neuron("units", 4), lambda z, a: a["units"][4]),
    "channel": (channel("maps", 2), lambda z, a: sum(a["maps"][2].flatten()) / 20),
    "channel of tokens": (channel("tokens", 2), lambda z, a: sum(a["tokens"][:, 2]) / 7),
    "channel of units": (channel("units", 2), lambda z, a: a["units"][2]),
    "layer": (layer("maps"), lambda z, a: sum(v * v for v in a["maps"].flatten()) / 120),
    "direction": (
        direction("maps", VECTOR),
        lambda z, a: sum(a["maps"][:, y, x] @ VECTOR for y in range(4) for x in range(5)) / 20,
    ),
    "direction of tokens": (
        direction("tokens", VECTOR), lambda z, a: sum(a["tokens"][t] @ VECTOR for t in range(7)) / 7,
    ),
    "direction of units": (direction("units", VECTOR), lambda z, a: a["units"] @ VECTOR),
    "token": (token("tokens", 6), lambda z, a: sum(v * v for v in a["tokens"][6]) / 6),
    "token's unit": (token("tokens", 0, 5), lambda z, a: a["tokens"][0, 5]),
    "head": (head("tokens", 2, 3), lambda z, a: a["tokens"][:, 4:6].square().sum() / 14),
    "sum": (
        2 * logit(1) - channel("maps", 0) / 4 + 0.5 * token("tokens", 1, 1) - neuron("maps", 3),
        lambda z, a: 2 * z[1] - a["maps"][0].mean() / 4 + a["tokens"][1, 1] / 2 - a["maps"][3, 2, 2],
    ),
    "two terms of a kind": (
        logit(1) - 3 * logit(0) + 0.5 * logit(5), lambda z, a: z[1] - 3 * z[0] + 0.5 * z[5],
    ),
}  # fmt: skip
DENSE: dict[str, tuple[Objective, Row]] = {
    "logit": (logit(3), lambda z, a: z[3].mean()),
    "margin": (margin(2), lambda z, a: (z[2] - z[[0, 1, 3, 4, 5]].max(0).values).mean()),
    "probability": (probability(1), lambda z, a: z.softmax(0)[1].log().mean()),
    # Each place of 4 x 6 covers 2 x 2 pixels of the mask, all inside or all but the columns 3 and 8.
    "region": (
        region(4, MASK), lambda z, a: (z[4, 1, 2:4].sum() + (z[4, 1, 1] + z[4, 1, 4]) / 2) / 3,
    ),
    "region of one place": (
        region(0, torch.eye(4, 6, dtype=torch.bool)), lambda z, a: sum(z[0, i, i] for i in range(4)) / 4,
    ),
}  # fmt: skip


def rows_of(known: Mapping[str, tuple[Objective, Row]]) -> tuple[list[Objective], list[Row]]:
    """All objectives in an order that mixes kinds, each twice, so that kinds share rows."""
    mixed = [*known.values(), *reversed(known.values())]
    return [objective for objective, _ in mixed], [row for _, row in mixed]


@pytest.mark.parametrize("known", [FLAT, DENSE], ids=["flat", "dense"])
def test_every_row_has_its_own_formula_and_its_own_gradient(
    known: Mapping[str, tuple[Objective, Row]],
) -> None:
    objectives, by_hand = rows_of(known)
    outputs, found = batch(len(objectives))
    if known is DENSE:
        outputs = noise(len(objectives), 6, 4, 6)
    inputs = [outputs.requires_grad_(), *(one.requires_grad_() for one in found.values())]
    values = evaluate(objectives, outputs, found)
    assert values.shape == (len(objectives),)
    for i, row in enumerate(by_hand):
        expected = row(outputs[i], {name: one[i] for name, one in found.items()})
        torch.testing.assert_close(values[i], expected)
        gradients = torch.autograd.grad(values[i], inputs, retain_graph=True, allow_unused=True)
        wanted = torch.autograd.grad(expected, inputs, allow_unused=True)
        assert any(one is not None and one[i].any() for one in gradients)
        for got, want, like in zip(gradients, wanted, inputs, strict=True):
            got = torch.zeros_like(like) if got is None else got
            torch.testing.assert_close(got, torch.zeros_like(like) if want is None else want)
            assert not got[torch.arange(len(got)) != i].any()


@pytest.mark.parametrize("known", [FLAT, DENSE], ids=["flat", "dense"])
def test_a_row_is_the_same_alone_and_next_to_broken_ones(
    known: Mapping[str, tuple[Objective, Row]],
) -> None:
    objectives, _ = rows_of(known)
    outputs, found = batch(len(objectives))
    outputs = noise(len(objectives), 6, 4, 6) if known is DENSE else outputs
    together = evaluate(objectives, outputs, found)
    for i, objective in enumerate(objectives):
        own = {name: one[i : i + 1] for name, one in found.items()}
        torch.testing.assert_close(evaluate([objective], outputs[i : i + 1], own)[0], together[i])
    outputs[1::2] = torch.nan
    for one in found.values():
        one[1::2] = torch.nan
    kept = outputs.requires_grad_()
    broken = evaluate(objectives, kept, found)
    assert torch.equal(broken[::2], together[::2])
    (gradient,) = torch.autograd.grad(broken[::2].sum(), kept)
    assert torch.isfinite(gradient[::2]).all()


def test_weights_mean_what_they_say() -> None:
    a, b = channel("maps", 1) + logit(2), margin(0)
    outputs, found = batch(3)

    def value(objective: Objective) -> Tensor:
        return evaluate([objective] * 3, outputs, found)

    torch.testing.assert_close(value(2 * a - b / 2), 2 * value(a) - value(b) / 2)
    for one, other in ((logit(2), margin(0)), (neuron("maps", 0), layer("units"))):
        assert torch.equal(value(2 * one - other / 2), 2 * value(one) - value(other) / 2)
        assert torch.equal(value(0.1 * one), 0.1 * value(one))
    assert torch.equal(value(-b), -value(b))
    opposite = -a
    assert opposite != a
    assert -opposite == a
    assert a + b == b + a
    assert a - b == -(b - a)
    assert a + a == 2 * a == a * 2.0 == np.float32(2) * a
    assert hybrid([1, 2]) == logit(1) + logit(2)
    assert logit(np.int64(3)) == logit(3)
    with pytest.raises(TypeError):
        logit(1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("operation", ["a + 1", "1 + a", "a - 1", "a * a", "a * 'x'", "a / a", "2 / a"])
def test_nothing_else_is_an_operation(operation: str) -> None:
    with pytest.raises(TypeError):
        eval(operation, {"a": logit(1)})


def test_probability_is_by_the_head_and_stays_finite() -> None:
    outputs = torch.tensor([[0.3, -200.0, 4.0]]).expand(3, -1)
    objectives = [probability(k) for k in range(3)]
    softmax = outputs[0].double().log_softmax(0).float()
    for name in ("softmax", "binary"):
        torch.testing.assert_close(evaluate(objectives, outputs, {}, head=name), softmax)  # type: ignore[arg-type]
    sigmoid = -torch.log1p((-outputs[0].double()).exp()).float()
    torch.testing.assert_close(evaluate(objectives, outputs, {}, head="multilabel"), sigmoid)
    assert evaluate(objectives, outputs, {})[1] < -200


def test_half_precision_is_summed_in_single_and_double_stays() -> None:
    found = noise(2, 3, 64, 64).bfloat16()
    objectives = [channel("maps", 1), layer("maps")]
    values = evaluate(objectives, noise(2, 4).bfloat16(), {"maps": found})
    assert values.dtype == torch.float32
    exact = torch.stack([found[0, 1].double().mean(), found[1].double().square().mean()])
    torch.testing.assert_close(values.double(), exact, rtol=1e-5, atol=1e-6)
    double = evaluate([logit(0)], noise(1, 3).double(), {})
    assert double.dtype == torch.float64


def test_a_mask_finer_than_the_output_loses_no_pixel() -> None:
    mask = torch.zeros(224, 224)
    mask[200, 100] = 1
    outputs = noise(1, 2, 7, 7)
    torch.testing.assert_close(evaluate([region(1, mask)], outputs, {})[0], outputs[0, 1, 6, 3])


# --- equality and text -------------------------------------------------------------------------


WRITTEN = {name: o for name, (o, _) in FLAT.items() if "direction" not in name}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("weight", [1, -1, 2, 0.1, -1e-7, 1e16, 1 / 3])
def test_text_is_read_back_as_the_same_objective(name: str, weight: float) -> None:
    objective = weight * WRITTEN[name]
    read = parse(str(objective), CLASSES)
    assert read == objective
    assert hash(read) == hash(objective)
    assert str(read) == str(objective)


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("logit[zebra]", logit(0)),
        ("logit[ giant panda ]", logit(1)),
        ("margin[340]", margin(340)),
        ("logit[2]", logit(2)),
        ("logit[7]", logit(7)),
        ('logit["7"]', logit(4)),
        ('probability["a]b"]', probability(5)),
        ("layer3.channel[17]", channel("layer3", 17)),
        ("layer3.neuron[17]", neuron("layer3", 17)),
        ("layer3.neuron[17, 4,5]", neuron("layer3", 17, 4, 5)),
        ("layer4", layer("layer4")),
        ("features.12", layer("features.12")),
        ("0", layer("0")),
        ("0.1", layer("0.1")),
        ("0.1*0.1.channel[2]", 0.1 * channel("0.1", 2)),
        ("encoder.3.token[0].unit[5]", token("encoder.3", 0, 5)),
        ("encoder.3.token[0]", token("encoder.3", 0)),
        ("encoder.3.head[2 of 12]", head("encoder.3", 2, 12)),
        ("a.token.token[1]", token("a.token", 1)),
        ("logit", layer("logit")),
        ("-layer4", -layer("layer4")),
        ("+ 2 * layer4", 2 * layer("layer4")),
        ("2.*layer4", 2 * layer("layer4")),
        (".5*layer4", 0.5 * layer("layer4")),
        ("1e-3*layer4", 0.001 * layer("layer4")),
        ("logit[1]-0.5*logit[2]+logit[1]", 2 * logit(1) - 0.5 * logit(2)),
        ("layer4 -layer3", layer("layer4") - layer("layer3")),
        ("my-layer - layer3", layer("my-layer") - layer("layer3")),
    ],
)
def test_what_people_write(text: str, objective: Objective) -> None:
    assert parse(text, CLASSES) == objective


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("logit[zebar]", "there is no class 'zebar'; the nearest is 'zebra'$"),
        ("logit[Gaint Panda]", "the nearest is 'giant panda'$"),
        ("logit[qqqqqq]", "there are 'zebra', 'giant panda', 'crane'"),
        ("logit[crane]", "the classes 2, 3 are all called 'crane'; give a number"),
        ("logit[-1]", "-1 is out of range"),
        ("", "'': not understood from ''; write logit"),
        ("  ", "not understood"),
        ("logit[]", r"logit\[\] is not understood"),
        ("logit[1", r"not understood from 'logit\[1'"),
        ("logit[1].unit[2]", "not understood"),
        ("logit[1] logit[2]", "not understood"),
        ("logit[1] +", r"not understood from '\+'"),
        ("logit[1] * 2", "not understood"),
        ("2 logit[1]", "not understood"),
        ("(logit[1])", r"'\(logit\[1\]\)'.*write logit"),
        ("layer3.chanel[17]", r"layer3.chanel\[17\] is not understood; write .*layer3.channel\[17\]"),
        ("layer3.channel[x]", "not understood"),
        ("layer3.channel[1,2]", "not understood"),
        ("layer3.neuron[1,2]", "not understood"),
        ("channel[3]", "not understood"),
        ("layer3.channel[3].unit[4]", "not understood"),
        ("layer3.head[1]", "not understood"),
        ("layer3.head[12 of 12]", "of 12 heads, they are 0 to 11"),
        ("layer3.direction[0123456789abcdef]", "a direction has no text; make it with direction"),
        ("region[3, 0123456789abcdef]", "a region has no text"),
        ("logit[1] - logit[1]", "cancel out"),
        ("0*logit[1]", "cancel out"),
        ("1e999*logit[1]", "NaN or infinite"),
    ],
)
def test_text_that_is_no_objective(text: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse(text, CLASSES)


def test_a_class_needs_names_to_be_named() -> None:
    with pytest.raises(ParamsError, match="names of classes are not known here, give a number"):
        parse("logit[zebra]")


def test_the_canonical_text() -> None:
    mixed = channel("features.12", 17) * -0.5 + logit(3)
    assert str(mixed) == "logit[3] - 0.5*features.12.channel[17]"
    assert str(-2 * layer("a") + neuron("a", 1, 2, 3)) == "-2*a + a.neuron[1,2,3]"
    assert mixed.layers == {"features.12"}
    assert logit(3).layers == frozenset()
    assert (token("a", 1) + head("b", 0, 2) - logit(1)).layers == {"a", "b"}


def test_the_classes_that_an_objective_is_about() -> None:
    assert (logit(2) - 0.5 * probability(0) + channel("maps", 7)).classes == {0, 2}
    assert (margin(1) + region(4, MASK)).classes == {1, 4}
    assert hybrid([3, 1]).classes == {1, 3}
    assert neuron("maps", 1).classes == frozenset()


def test_masks_and_vectors_are_equal_by_what_they_hold() -> None:
    vector, mask = VECTOR.clone(), MASK.bool()
    objectives = {direction("a", vector), region(1, mask)}
    assert {direction("a", VECTOR.double()), region(1, MASK)} == objectives
    texts = {str(one) for one in objectives}
    before = evaluate([direction("a", vector)], noise(1, 2), {"a": noise(1, 6)})
    kept = direction("a", vector)
    vector[0] += 1
    mask[0, 0] = True
    assert direction("a", vector) != direction("a", VECTOR)
    assert str(direction("a", vector)) not in texts
    assert region(1, mask) not in objectives
    assert region(1, MASK.reshape(12, 8)) not in objectives
    assert direction("b", VECTOR) not in objectives
    assert torch.equal(evaluate([kept], noise(1, 2), {"a": noise(1, 6)}), before)
    again = pickle.loads(pickle.dumps(kept))
    assert again == kept
    assert torch.equal(evaluate([again], noise(1, 2), {"a": noise(1, 6)}), before)


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hybrid([]), "nothing to climb"),
        (lambda: logit(1) * float("nan"), "NaN or infinite"),
        (lambda: logit(1) - logit(1), "cancel out"),
        (lambda: neuron("a", 1, y=2), "both y and x"),
        (lambda: layer(""), "no name"),
        (lambda: head("a", 3, 3), "of 3 heads, they are 0 to 2"),
        (lambda: head("a", -1, 3), "0 to 2"),
        (lambda: direction("a", torch.zeros(3)), "not zero"),
        (lambda: direction("a", torch.ones(3, 1)), r"shape \(3, 1\)"),
        (lambda: direction("a", torch.tensor([1.0, torch.inf])), "finite"),
        (lambda: region(1, torch.zeros(3, 3)), "somewhere positive"),
        (lambda: region(1, -MASK), "nowhere negative"),
        (lambda: region(1, MASK[None]), r"shape \(1, 8, 12\)"),
        (lambda: region(1, MASK / 0), "finite"),
    ],
)
def test_objectives_that_cannot_be(make: Callable[[], Objective], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        make()


def test_evaluate_refuses_what_does_not_fit() -> None:
    outputs, found = batch(2)
    with pytest.raises(ModelError, match="'gone' was not called"):
        evaluate([layer("gone")] * 2, outputs, found)
    with pytest.raises(ModelError, match=r"maps returns a tensor of shape \(2, 6, 4, 5\) for 1 images"):
        evaluate([layer("maps")], outputs[:1], found)
    with pytest.raises(ModelError, match=r"the model returns a tensor of shape \(2, 6\) for 1 images"):
        evaluate([logit(1)], outputs, found)
    with pytest.raises(ModelError, match="6 classes, 0 to 5; 6 is none"):
        evaluate([logit(0), logit(6)], outputs, found)


@pytest.fixture(scope="module")
def cnn() -> Classifier:
    spec = ModelSpec("residual_cnn", tuple("abcd"), (16, 16), {"widths": [4, 6]})
    return build_model(spec, seed=1)


class Segments(nn.Module):
    """Dense logits in a dict, as torchvision's; a grey input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 5, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.conv(x), "aux": x}


def torchvision_vit() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(32, 8, 2, 4, 16, 32, num_classes=5)


def transformers_vit() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=5))


def test_check_passes_what_the_model_has_and_leaves_it_as_it_was(cnn: Classifier) -> None:
    cnn.train()
    buffers = {name: value.clone() for name, value in cnn.state_dict().items()}
    last = next(n for n, m in reversed(list(cnn.network.named_modules())) if isinstance(m, nn.Conv2d))
    wanted = logit(3) + probability(0) - channel(last, 5) + neuron(last, 0) + direction(last, VECTOR)
    check(wanted, cnn, (16, 16))
    assert cnn.training
    assert all(parameter.requires_grad for parameter in cnn.parameters())
    assert not any(module._forward_hooks for module in cnn.modules())
    assert all(torch.equal(value, buffers[name]) for name, value in cnn.state_dict().items())
    check(region(4, MASK) + margin(0), Segments(), (9, 7), channels=1)
    check(layer("0"), nn.Sequential(nn.Conv2d(2, 3, 3)), (8, 8), channels=2)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (logit(4), "the model has 4 classes, 0 to 3; 4 is none of them"),
        (logit(-1), "0 to 3; -1 is none of them"),
        (channel("{last}", 6), r"{last} has 6 channels, 0 to 5; 6 is none of them"),
        (neuron("{last}", 6), "6 channels, 0 to 5"),
        (neuron("{last}", 0, 99, 0), r"rows, 0 to \d+; 99 is none of them"),
        (neuron("{last}", 0, 0, 99), r"columns, 0 to \d+; 99 is none of them"),
        (direction("{last}", torch.ones(5)), "{last} has 6 channels, and the direction 5"),
        (token("{last}", 0), r"returns \(6, \d+, \d+\) for an image; .*needs \(tokens, units\)"),
        (head("{last}", 0, 2), r"needs \(tokens, units\)"),
        (region(0, MASK), r"returns \(4,\) for an image; .*needs a dense output"),
        (layer("{last}x"), "no layer '{last}x'; the nearest (is|are) '{last}'"),
        (layer("network.{last}"), "no layer"),
    ],
)
def test_check_says_what_the_model_has_not(cnn: Classifier, objective: Objective, message: str) -> None:
    last = next(n for n, m in reversed(list(cnn.network.named_modules())) if isinstance(m, nn.Conv2d))
    (weight, term), = objective.terms  # fmt: skip
    named = Objective(((weight, replace(term, layer=term.layer.replace("{last}", last))),))
    with pytest.raises(ModelError, match=message.replace("{last}", last.replace(".", r"\."))):
        check(named, cnn, (16, 16))
    assert not any(module._forward_hooks for module in cnn.modules())


VITS = {
    "torchvision": (torchvision_vit, "encoder.layers.encoder_layer_1"),
    "transformers": (transformers_vit, "vit.layers.1"),
}


@pytest.mark.parametrize("library", VITS)
def test_tokens_and_units_of_a_vit(library: str) -> None:
    make, block = VITS[library]
    model = make().eval()
    images = noise(4, 3, 32, 32).requires_grad_()
    objectives = [
        token(block, 0), token(block, 16, 15), channel(block, 3), head(block, 3, 4) - margin(1),
    ]  # fmt: skip
    for objective in objectives:
        check(objective, model, (32, 32))
    with recording(model, [block]) as seen:
        answer = model(images)
    outputs = answer if isinstance(answer, Tensor) else answer.logits
    values = evaluate(objectives, outputs, seen)
    hidden = seen[block]
    assert hidden.shape == (4, 17, 16)
    others = outputs[3].index_fill(0, torch.tensor([1]), -torch.inf).max()
    by_hand = [
        hidden[0, 0].square().mean(),
        hidden[1, 16, 15],
        hidden[2, :, 3].mean(),
        hidden[3, :, 12:].square().mean() - (outputs[3, 1] - others),
    ]
    torch.testing.assert_close(values, torch.stack(by_hand))
    gradient = torch.autograd.grad(values[1], images)[0]
    assert gradient[1].any()
    assert not gradient[[0, 2, 3]].any()


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (token("{block}", 17), "has 17 tokens, 0 to 16; 17 is none of them"),
        (token("{block}", 0, 16), "has 16 units, 0 to 15"),
        (channel("{block}", 16), "has 16 channels, 0 to 15"),
        (head("{block}", 0, 3), "units that 3 heads share evenly"),
        (neuron("{block}", 0), r"needs \(channels, height, width\); for \(tokens, units\) see token"),
    ],
)
def test_check_of_a_vit(objective: Objective, message: str) -> None:
    make, block = VITS["torchvision"]
    (_, term), = objective.terms  # fmt: skip
    named = Objective(((1.0, replace(term, layer=block)),))
    with pytest.raises(ModelError, match=message):
        check(named, make(), (32, 32))


def test_layers_that_do_not_run_and_pictures_that_do_not_fit() -> None:
    model = torchvision_vit()
    inner = "encoder.layers.encoder_layer_0.self_attention.out_proj"
    with pytest.raises(ModelError, match=f"'{inner}' was not called .*choose the layer around it"):
        check(layer(inner), model, (32, 32))
    with pytest.raises(ModelError, match="does not take a picture of 3 × 24 × 32"):
        check(logit(0), model, (24, 32))
    small = nn.Sequential(nn.Conv2d(3, 4, 7), nn.Flatten())
    with pytest.raises(ModelError, match=r"does not take a picture of 3 × 4 × 4 \(.*[Kk]ernel size"):
        check(logit(0), small, (4, 4))
    assert small.training
    single = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1))
    with pytest.raises(ModelError, match="needs two classes or more"):
        check(margin(0), single, (4, 4))


def test_climbing_an_objective_raises_it_and_lowers_its_negative(cnn: Classifier) -> None:
    start = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    objectives = [2 * logit(1) - 0.5 * logit(0), -(2 * logit(1) - 0.5 * logit(0))]
    images = start[:1].expand(2, -1, -1, -1).clone().requires_grad_()
    cnn.eval()
    before = evaluate(objectives, cnn(images), {})
    (gradient,) = torch.autograd.grad(before.sum(), images)
    torch.testing.assert_close(gradient[0], -gradient[1])
    moved = images + 0.1 * F.normalize(gradient.flatten(1)).view_as(images)
    assert (evaluate(objectives, cnn(moved), {}) > before).all()


def test_classes_are_known_by_their_synonyms() -> None:
    classes = ("goldfish, Carassius auratus", "school bus", "pizza, pizza pie")
    assert place_named("pizza", classes) == 2
    assert place_named("School-Bus", classes) == 1
    assert parse("logit[carassius auratus]", classes) == logit(0)
    with pytest.raises(ParamsError, match="no class 'pie'"):
        place_named("pie", classes)
