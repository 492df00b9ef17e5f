"""The DVC stage `scenes`: draw the pictures of an audit that brings none.

python -m tasks.draw_scenes params/tanks.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

from candling.errors import ParamsError
from candling.vision.scenes import Split, write_splits
from tasks.params import read_params

__all__ = ["main"]


def main(file: Path) -> None:
    """Draw all splits that `scenes:` in the params names."""
    from candling.cli.progress import Progress

    params = read_params(file)
    if params.scenes is None:
        raise ParamsError(f"{file}: no `scenes:` section; this audit brings its data")
    splits = [
        Split(name=name, images=s.images, kind=s.kind, strength=s.strength, clean=s.clean)
        for name, s in params.scenes.splits.items()
    ]
    with Progress() as progress:
        progress.start("draw scenes", params.name, None)
        write_splits(
            Path.cwd() / params.scenes.folder, splits, seed=params.seed, size=params.scenes.size,
            progress=lambda done, total: progress.advance("draw scenes", params.name, done, total),
        )  # fmt: skip
        progress.finish("draw scenes", params.name, hit=False)


if __name__ == "__main__":
    from candling.cli.main import guard

    with guard():
        main(Path(sys.argv[1]))
