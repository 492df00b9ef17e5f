"""A real Chromium over a page of the report: what it logs, what it asks for, and how it looks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

# Where Debian, other systems and people put it.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CANDLING_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here; `make chromium` installs Debian's"
)


@dataclass
class Opened:
    """A page in the browser; `said` is what it logged, `asked` which addresses it asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def quiet(self, file: Path) -> None:
        """See that nothing was logged, nothing asked for but the file, and nothing popped up."""
        assert self.said == []
        assert [address for address in self.asked if not address.startswith("data:")] == [file.as_uri()]


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window, nor sandbox and shared memory: containers have little of these."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        launched = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield launched
        finally:
            launched.close()


@contextmanager
def opened(
    browser: Any,
    file: Path,
    *,
    width: int = 1400,
    height: int = 900,
    scheme: Literal["light", "dark"] = "light",
) -> Iterator[Opened]:
    """A page opened from disk, offline."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        offline=True,
        reduced_motion="reduce",
    )
    found = Opened(context.new_page())
    found.page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
    found.page.on("pageerror", lambda error: found.said.append(f"error: {error}"))
    found.page.on("request", lambda request: found.asked.append(request.url))

    def popped(dialog: Any) -> None:
        found.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    found.page.on("dialog", popped)
    try:
        found.page.goto(file.as_uri(), wait_until="load")
        yield found
    finally:
        context.close()


def violations(page: Any) -> list[str]:
    """What axe-core finds that keeps people out: serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    return [
        f"{one['id']} ({one['impact']}): {one['nodes'][0]['html'][:200]}"
        for one in Axe().run(page).response["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def too_wide(page: Any) -> int:
    """By how many pixels the page is wider than the window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


# Name, width, height, scheme. CANDLING_SCREENSHOTS names a folder where they are kept to be looked at.
LOOKS: tuple[tuple[str, int, int, Literal["light", "dark"]], ...] = (
    ("light", 1400, 900, "light"),
    ("dark", 1400, 900, "dark"),
    ("narrow", 390, 844, "light"),
    ("narrow-dark", 390, 844, "dark"),
)


def screenshots(browser: Any, file: Path, folder: Path, name: str) -> list[Path]:
    """What a page looks like in each of the looks, and printed; sections are pictures of their own."""
    folder = Path(os.environ.get("CANDLING_SCREENSHOTS", folder))
    folder.mkdir(parents=True, exist_ok=True)
    taken = []
    for look, width, height, scheme in LOOKS:
        with opened(browser, file, width=width, height=height, scheme=scheme) as one:
            assert too_wide(one.page) <= 0, f"{name}, {look}"
            taken.append(folder / f"{name}-{look}.png")
            one.page.screenshot(path=taken[-1])
            for section in ("prototypes", "entanglement", "isolation", "associations", "attribution"):
                part = one.page.locator(f"#{section}")
                if part.count() and look in ("light", "dark"):
                    box = part.bounding_box()
                    clip = {"x": 0, "y": box["y"], "width": width, "height": min(box["height"], 1600)}
                    taken.append(folder / f"{name}-{look}-{section}.png")
                    one.page.screenshot(path=taken[-1], clip=clip, full_page=True)
    with opened(browser, file) as one:
        one.page.emulate_media(media="print")
        one.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        taken.append(folder / f"{name}-print.png")
        one.page.screenshot(path=taken[-1])
        taken.append(folder / f"{name}-print.pdf")
        one.page.pdf(path=taken[-1])
    return taken


def examine(browser: Any, file: Path, folder: Path, name: str) -> list[Path]:
    """What holds of the page of any audit: small, quiet, open to all. Returns what it looks like."""
    assert file.stat().st_size < 12_000_000
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        with opened(browser, file, scheme=scheme) as one:
            assert violations(one.page) == []
            one.quiet(file)
    taken = screenshots(browser, file, folder, name)
    assert len({shot.read_bytes() for shot in taken}) == len(taken)
    return taken
