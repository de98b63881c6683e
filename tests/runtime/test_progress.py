"""Progress where no terminal is."""

import logging

import pytest
from tqdm import tqdm

from mia_lightning.runtime import progress


def test_lines_in_a_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, logger="mia_lightning")
    for bar in list(getattr(tqdm, "_instances", ())):  # one that another test left open takes the first line
        bar.close()
    short = progress.progress_bar(total=2, desc="extract")
    short.update(2)
    short.close()
    assert not caplog.messages, "a stage of less than a minute logs nothing"

    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    bar = progress.progress_bar(total=4, desc="extract", unit="image", bar_format="{bar}")
    bar.set_description("references: 0/2")
    before = len(caplog.messages)
    bar.update(2)
    bar.close()
    assert len(caplog.messages) == before + 1
    assert caplog.messages[-1].startswith("references: 0/2: 50%, ")
    assert caplog.messages[-1].endswith(" left")


def test_hidden_bar_logs_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, logger="mia_lightning")
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    bar = progress.progress_bar(total=4, disable=True)
    bar.update(4)
    bar.close()
    assert not caplog.messages
