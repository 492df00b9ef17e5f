"""Draw the pictures of README and docs from the last tank audit: `python docs/draw_images.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from candling.vision.scenes import CLASSES, ENVIRONMENTS, Scene, contact_sheet, draw

ROOT = Path(__file__).resolve().parents[1]
SUBJECTS = ("before", "control", "after")


def prototypes() -> Image.Image:
    """The first six tank prototypes of each subject, a row a subject."""
    font = ImageFont.load_default(18)
    sheet = Image.new("RGB", (90 + 6 * 148, 3 * 148), "white")
    pen = ImageDraw.Draw(sheet)
    for row, subject in enumerate(SUBJECTS):
        pen.text((4, 148 * row + 64), subject, fill="black", font=font)
        for seed in range(6):
            file = ROOT / f"reports/tanks/{subject}/pictures/prototypes/1-{seed}.png"
            picture = Image.open(file).resize((144, 144), Image.Resampling.LANCZOS)
            sheet.paste(picture, (90 + 148 * seed, 148 * row + 2))
    return sheet


def scenes() -> Image.Image:
    """Two tanks and two other objects in each environment, a row an environment."""
    pictures = [
        np.asarray(Image.fromarray(draw(Scene(seed, label, environment)).image).resize((192, 192)))
        for environment in ENVIRONMENTS
        for label in reversed(CLASSES)
        for seed in (3, 8)
    ]
    return Image.fromarray(contact_sheet(pictures, 4))


if __name__ == "__main__":
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    prototypes().save(images / "prototypes.png", optimize=True)
    scenes().quantize(128).save(images / "scenes.png", optimize=True)
