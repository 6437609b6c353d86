"""Shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

os.environ.pop("GITHUB_STEP_SUMMARY", None)  # what the tests check is no part of the summary of the step that runs them
sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parents[1]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything must have run, a test that was skipped is a failure: `GRADPROOF_NO_SKIPS=1`."""
    told = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("GRADPROOF_NO_SKIPS") and told is not None and told.stats.get("skipped") and session.exitstatus == 0:
        told.write_line("some tests were skipped, and GRADPROOF_NO_SKIPS is set")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
