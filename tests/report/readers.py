"""Each format read as its users read it, down to whether it lets a model through."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import yaml
from markdown_it import MarkdownIt

SCHEMAS = Path(__file__).resolve().parents[3] / "shared" / "schemas"
COMMAND = re.compile(r"::(error|warning|notice) ((?:[a-z]+=[^,:\n]*,?)+)::([^\n]*)")
WORDS = {"passed": 0, "blocked": 1, "incomplete": 2, "nothing audited": 3}


@cache
def sarif_schema() -> Any:
    file = SCHEMAS / "sarif-2.1.0.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def junit(text: str) -> ElementTree.Element:
    """The suite, after its counts were counted again."""
    root = ElementTree.fromstring(text.encode("utf-8"))
    (suite,) = root
    for element in (root, suite):
        for name, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(element.attrib[name]) == len(suite.findall(f"testcase/{kind}"))
        assert int(element.attrib["tests"]) == len(suite.findall("testcase"))
    return suite


def sarif(text: str) -> dict[str, Any]:
    """The run, after the log was held to the official schema."""
    log = json.loads(text)
    if sarif_schema() is not None:
        jsonschema.Draft7Validator(sarif_schema()).validate(log)
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(rules) == len(set(rules))
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
    return dict(run)


def github(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Level, properties and message of each annotation; every line is one, and no line is another command."""
    found = []
    for line in text.split("\n")[:-1]:
        match = COMMAND.fullmatch(line)
        assert match is not None, line
        properties = dict(part.split("=", 1) for part in match[2].rstrip(",").split(","))
        found.append((match[1], properties, match[3]))
    for level in ("error", "warning", "notice"):
        assert sum(one[0] == level for one in found) <= 10
    return found


def markdown(text: str) -> str:
    """The HTML that it becomes, with what GitHub would make of it: tables, links out of bare addresses."""
    return str(MarkdownIt("gfm-like", {"linkify": False}).render(text))


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The metadata of a model card, and its text."""
    _, front, body = text.split("---\n", 2)
    return dict(yaml.safe_load(front)), body


def lets_through(name: str, text: str) -> bool:
    """Whether the reader of a format would take the model for passed."""
    if name == "json":
        return bool(json.loads(text)["exit_code"] == 0)
    if name == "junit":
        return not junit(text).findall("testcase/failure") + junit(text).findall("testcase/error")
    if name == "sarif":
        run = sarif(text)
        open_ = [r for r in run["results"] if r["level"] == "error" and not r.get("suppressions")]
        assert (run["invocations"][0]["exitCode"] == 0) == (not open_)
        return not open_
    if name == "github":
        return not any(level == "error" for level, _, _ in github(text))
    if name == "html":
        return re.findall(r'<article class="card is-(\w+)">', text) == ["passed"]
    body = front_matter(text)[1] if name == "model-card" else text
    said = re.search(r"(?:^## .*: |with candling: \*\*)([a-z ]+?)(?:\*\*|$)", body, re.MULTILINE)
    assert said is not None, body[:300]
    return WORDS[said[1]] == 0
