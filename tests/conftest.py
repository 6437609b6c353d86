"""Shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

os.environ.pop(
    "GITHUB_STEP_SUMMARY", None
)  # what the tests check is no part of the summary of the step that runs them
TESTS = Path(__file__).parent
sys.path[:0] = map(str, (TESTS, TESTS / "torch", TESTS / "engines"))  # tables that several tests read

ROOT = Path(__file__).parents[1]


# What an older torch lacks, or does less well: below which version, in which tests, and why. None of it is
# gradproof's.
OLDER = [
    ((2, 13), "are_right[nextafter", "nextafter has no derivative"),
    (
        (2, 9),
        "a saturated sigmoid and tanh, ",
        "its sigmoid is 0 where the exact number is not, and is told as wrong",
    ),
    ((2, 9), "the tails of softplus, float32", "its softplus is told as wrong in the tails"),
    ((2, 9), "the tails of logsigmoid, float32", "its logsigmoid is told as wrong in the tails"),
    ((2, 9), "an LSTM-bfloat16", "there is no LSTM in bfloat16 on the CPU"),
    ((2, 9), "an LSTM, again-bfloat16", "there is no LSTM in bfloat16 on the CPU"),
    ((2, 9), "LSTM of two layers-bfloat16", "there is no LSTM in bfloat16 on the CPU"),
    (
        (2, 9),
        "compiled_code_may_round_otherwise",
        "a compiled region is one autograd node that is judged: wrong, not failed",
    ),
    ((2, 9), "a_series_that_is_summed_in_16_bits", "i1e has no kernel of 16 bits"),
    (
        (2, 9),
        "a_committed_report_is_what_the_sources_say",
        "the pages show the numbers of the version that is tested with",
    ),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import re
    from importlib.metadata import version

    there = tuple(map(int, re.findall(r"\d+", version("torch"))[:2]))
    for item in items:
        for below, part, why in OLDER:
            if there < below and part in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=f"torch {version('torch')}: {why}"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything must have run, a test that was skipped is a failure: `GRADPROOF_NO_SKIPS=1`."""
    told = session.config.pluginmanager.get_plugin("terminalreporter")
    if (
        os.environ.get("GRADPROOF_NO_SKIPS")
        and told is not None
        and told.stats.get("skipped")
        and session.exitstatus == 0
    ):
        told.write_line("some tests were skipped, and GRADPROOF_NO_SKIPS is set")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
