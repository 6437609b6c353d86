"""What the page of findings about torch says is still so."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from conftest import ROOT
from gradproof import Verdict, check_function

PAGE = (ROOT / "reports" / "torch.md").read_text()
EXAMPLES = [
    pytest.param(program, id=title.strip())
    for title, program in re.findall(
        r"^## ([^\n]*)\n.*?^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    )
]


@pytest.mark.skipif(not torch.__version__.startswith("2.13"), reason="the page is about torch 2.13")
@pytest.mark.parametrize("program", EXAMPLES)
def test_a_finding_is_still_one(program: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(program, "torch.md", "exec"), names)  # our own page
    report = check_function(names["func"], *names["inputs"], **names.get("options", {}))
    assert report.verdict is Verdict.WRONG, report.to_text()


def test_the_page_has_an_example_for_every_row() -> None:
    assert len(EXAMPLES) == 16 == PAGE.count("## ")
