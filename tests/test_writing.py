"""Files are written whole or not at all, and what is no file is never replaced by one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from candling.writing import write_whole


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_whole({tmp_path / "link": "new"})
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_pipe_gets_the_text(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_whole({pipe: "all of it", tmp_path / "file": "too"})
    reader.join(10)
    assert read == ["all of it"]
    assert pipe.is_fifo()
    assert (tmp_path / "file").read_text() == "too"


def test_who_may_read_a_file_stays(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("old")
    secret.chmod(0o600)
    write_whole({secret: "new"})
    assert secret.stat().st_mode & 0o777 == 0o600


def test_a_folder_among_them_leaves_all_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole({tmp_path / "a": "new", tmp_path / "folder": "new"})
    assert (tmp_path / "a").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "folder"]


def test_drafts_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".a.part").write_text("of another program")
    write_whole({tmp_path / "a": "\ud800 is no UTF-8"})
    assert (tmp_path / ".a.part").read_text() == "of another program"
    assert (tmp_path / "a").read_text() == "\\ud800 is no UTF-8"
