"""Preprocessing against the libraries whose files it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from candling.errors import DataError, ModelError
from candling.models import Classifier, ModelSpec, Preprocessing, read_preprocessing


def picture(width: int = 61, height: int = 47) -> Image.Image:
    """Smooth, with one edge: what a photograph is at this size."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 7 + y / 11), np.cos(x / 5), np.where(x > y, 1.0, -1.0)]
    return Image.fromarray((127 + 100 * np.stack(waves, -1)).astype(np.uint8))


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def classifier(seen: Preprocessing) -> Classifier:
    assert seen.image_size is not None
    spec = ModelSpec("x", ("a",), seen.image_size, mean=seen.mean, std=seen.std, resize=seen.resize,
                     interpolation=seen.interpolation, channels=seen.channels or "rgb")  # fmt: skip
    return Classifier(nn.Identity(), spec)


def seen_by_network(model: Classifier, image: Image.Image) -> Tensor:
    return model.normalise(tensor(model.prepare(image)[0]))


GEOMETRIES: dict[str, dict[str, Any]] = {
    "exact": {"image_size": [20, 30]},
    "exact, larger": {"image_size": 90},
    "shortest side and crop": {"resize": 36, "center_crop": 32},
    "odd crop": {"resize": 35, "center_crop": 32},
    "crop beyond the picture": {"resize": 20, "center_crop": 28},
    "crop not square": {"resize": 40, "center_crop": [24, 36]},
    "exact and crop": {"resize": [40, 50], "center_crop": 32},
    "no change": {"image_size": [47, 61]},
}


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("case", GEOMETRIES)
@pytest.mark.parametrize("size", [(61, 47), (40, 71)])
def test_geometry_of_tensors_is_that_of_pictures(
    case: str, interpolation: str, size: tuple[int, int]
) -> None:
    model = classifier(read_preprocessing({**GEOMETRIES[case], "interpolation": interpolation}))
    prepared, _ = model.prepare(picture(*size))
    assert prepared.size == model.spec.image_size[::-1]
    images = tensor(picture(*size)).requires_grad_()
    out = model.geometry(images)
    difference = (out.detach() - tensor(prepared)).abs()
    assert float(difference.mean()) < (0.01 if interpolation == "nearest" else 0.004)
    if interpolation == "nearest":  # of two pixels equally near either is right
        assert float((difference > 0).float().mean()) < 0.15
    else:  # lanczos is bicubic on tensors, which differs at edges
        assert float(difference.max()) < (0.1 if interpolation == "lanczos" else 0.012)
    (gradient,) = torch.autograd.grad(out.sum(), images)
    assert gradient.any()


@pytest.mark.parametrize("size", [(61, 47), (40, 71), (36, 36)])
def test_torchvision_preset(size: tuple[int, int]) -> None:
    preset = ImageClassification(crop_size=32, resize_size=36, interpolation=InterpolationMode.BICUBIC)
    form = {"resize": 36, "center_crop": 32, "interpolation": "bicubic", "mean": list(preset.mean),
            "std": list(preset.std)}  # fmt: skip
    ours = seen_by_network(classifier(read_preprocessing(form)), picture(*size))
    torch.testing.assert_close(ours, preset(picture(*size))[None])


SQUARE = {"height": 24, "width": 24}
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTImageProcessor", {"size": SQUARE}),
    "vit, no normalisation": ("ViTImageProcessor", {"size": SQUARE, "do_normalize": False}),
    "vit, no rescaling": ("ViTImageProcessor", {"size": SQUARE, "do_rescale": False,
                                                "image_mean": [120.0] * 3, "image_std": [60.0] * 3}),
    "vit, resampling": ("ViTImageProcessor", {"size": SQUARE, "resample": 3}),
    "convnext below 384": ("ConvNextImageProcessor", {"size": {"shortest_edge": 28}, "crop_pct": 0.875}),
    "convnext from 384 on": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "bit": ("BitImageProcessor", {"size": {"shortest_edge": 28}, "crop_size": SQUARE}),
    "deit": ("DeiTImageProcessor", {"size": {"height": 28, "width": 28}, "crop_size": SQUARE}),
    "efficientnet": ("EfficientNetImageProcessor", {"size": SQUARE, "rescale_offset": True,
                                                    "rescale_factor": 1 / 127.5}),
    "mobilevit": ("MobileViTImageProcessor", {"size": {"shortest_edge": 28}, "crop_size": SQUARE}),
}  # fmt: skip


@pytest.mark.parametrize("case", PROCESSORS)
def test_image_processors_of_transformers(tmp_path: Path, case: str) -> None:
    import transformers

    name, arguments = PROCESSORS[case]
    processor = getattr(transformers, name)(**arguments)
    processor.save_pretrained(tmp_path)
    model = classifier(read_preprocessing(tmp_path / "preprocessor_config.json"))
    image = picture(51, 51)
    theirs = processor(images=image, return_tensors="pt")["pixel_values"]
    ours = seen_by_network(model, image)
    # Ours resizes with Pillow, theirs may round otherwise: by two grey levels in 255 at most.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2.5 / 255 / min(model.spec.std))


def test_config_of_timm() -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_resnet", pretrained=False, num_classes=2)
    model = classifier(read_preprocessing(network.pretrained_cfg))
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))
    image = picture(200, 180)
    torch.testing.assert_close(seen_by_network(model, image), transform(image)[None])


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"range": [-1, 1]}, lambda x: 2 * x - 1),
        ({"range": [0, 255]}, lambda x: 255 * x),
        ({"range": [0, 255], "mean": 100, "std": [50, 60, 70]},
         lambda x: (255 * x - 100) / torch.tensor([50, 60, 70.0]).view(1, 3, 1, 1)),
        ({"mean": [0.5], "std": 0.25}, lambda x: (x - 0.5) / 0.25),
        ({"channels": "grey"}, lambda x: x.mean(1, keepdim=True)),
        ({"channels": "bgr", "mean": [0.1, 0.2, 0.3]},
         lambda x: (x - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)).flip(1)),
    ],
)  # fmt: skip
def test_normalisation(form: dict[str, Any], expected: Any) -> None:
    x = torch.rand(2, 3, 6, 6)
    model = classifier(read_preprocessing({"image_size": 6, **form}))
    torch.testing.assert_close(model.normalise(x), expected(x), rtol=1e-5, atol=1e-4)


def test_masks_go_the_same_way_and_are_not_mixed() -> None:
    model = classifier(read_preprocessing({"resize": 36, "center_crop": 32}))
    ids = np.zeros((47, 61), np.uint8)
    ids[10:40, 20:50] = 7
    colour = Image.fromarray(np.repeat((ids * 30)[..., None], 3, 2))
    cut, mask = model.prepare(colour, Image.fromarray(ids))
    assert mask is not None
    assert mask.size == (32, 32)
    values = np.array(mask)
    assert set(np.unique(values)) == {0, 7}
    assert np.mean((np.array(cut)[..., 0] > 105) == (values == 7)) > 0.98
    with pytest.raises(DataError, match="a mask of"):
        model.prepare(colour, mask)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"resize": 36}, "give center_crop too"),
        ({"image_size": 8, "crop": 3}, "'crop' is none of"),
        ({"image_size": 0}, "a size is one number"),
        ({"image_size": [1, 2, 3]}, "a size is one number"),
        ({"image_size": 8, "std": 0}, "std and scale must be larger"),
        ({"image_size": 8, "mean": [0.1, 0.2]}, "one or three numbers"),
        ({"image_size": 8, "mean": "grey"}, "not preprocessing"),
        ({"image_size": 8, "range": [1, 1]}, "std and scale must be larger"),
        ({"image_size": 8, "interpolation": "area"}, "interpolation 'area'"),
        ({"do_resize": True, "size": {"longest_edge": 3}}, "neither shortest_edge"),
        ({"input_size": [3, 8, 8], "crop_mode": "border"}, "crop_mode 'border'"),
        ([1], "preprocessing is a mapping"),
    ],
)
def test_what_cannot_be_followed(tmp_path: Path, form: Any, message: str) -> None:
    (tmp_path / "p.json").write_text(json.dumps(form))
    with pytest.raises(ModelError, match=rf"p\.json: .*{message}"):
        read_preprocessing("p.json", root=tmp_path)


def test_files_that_are_not_there_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such preprocessing file"):
        read_preprocessing("p.json", root=tmp_path)
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        read_preprocessing("p.json", root=tmp_path)
