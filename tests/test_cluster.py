"""`--dask`: targets on a cluster that is there already; here one on loopback."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gradproof.cli import main

TARGETS = ["a.toml", "work.py:f", "b.toml", "work.py:leaves", "no.toml"]
WORK = """\
import os, torch
def f(): return torch.tanh, torch.ones(2, requires_grad=True)
def leaves(): return lambda x: os._exit(0), torch.ones(2, requires_grad=True)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(
            f'title = "{name}"\ngraph = "{name} = sigmoid(w)**2"\n[parameters]\nw = 0.5\n'
        )
    (tmp_path / "work.py").write_text(WORK)
    return tmp_path


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


def told(capfd: pytest.CaptureFixture[str]) -> tuple[list[Any], list[Any]]:
    whole = json.loads(capfd.readouterr().out)
    return [
        {key: value for key, value in report.items() if key != "seconds"} for report in whole["reports"]
    ], whole["errors"]


def test_a_cluster_tells_what_this_machine_tells(
    address: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *TARGETS, "--format", "json"]) == 2
    here = told(capfd)
    assert main(["check", *TARGETS, "--format", "json", "--dask", address]) == 2
    assert told(capfd) == here
    assert [report["verdict"] for report in here[0]] == ["rounding", "failed", "exact", "exact"]


def test_the_record_holds_for_a_cluster_too(
    address: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRADPROOF_CACHE", str(folder / "cache"))
    assert main(["check", "a.toml", "b.toml", "--dask", address, "--resume"]) == 0
    capfd.readouterr()
    assert main(["check", "a.toml", "b.toml", "--resume"]) == 0
    assert "2 of 2 unchanged" in capfd.readouterr().err


def test_without_dask_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["check", "a.toml", "--dask", "tcp://127.0.0.1:1"]) == 2
    assert "install gradproof[dask]" in capfd.readouterr().err


def test_where_no_cluster_answers_that_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("gradproof.cluster.PATIENCE", 2)
    assert main(["check", "a.toml", "--dask", "tcp://127.0.0.1:1"]) == 2
    assert "no cluster answers" in capfd.readouterr().err


def test_jobs_are_for_here(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "a.toml", "--dask", "tcp://127.0.0.1:1", "--jobs", "2"]) == 2
    assert "--jobs" in capfd.readouterr().err
