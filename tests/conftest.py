"""Shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

pytest_plugins = ["pytester"]

os.environ.pop("GITHUB_STEP_SUMMARY", None)  # what the tests check is no part of the summary of the step that runs them
sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parents[1]
