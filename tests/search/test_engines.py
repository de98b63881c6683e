"""The local engine and the journal: failures, samplers, pruning, resuming, altered files."""

import json
import os
import re

import numpy as np
import pytest
from helpers.search import DROPOUT, QuadraticObjective, run_config, run_search

from mia_lightning.config.search import SearchConfig
from mia_lightning.errors import MIAError
from mia_lightning.search.space import Space
from mia_lightning.search.trial import Trial
from mia_lightning.search.trial_log import TrialLog

(KEY,) = DROPOUT


def content(trials):
    return [(trial.number, trial.params, trial.status, trial.figures, trial.epochs) for trial in trials]


def test_failed_trial_does_not_end_the_search():
    trials = run_search(QuadraticObjective(fail=(2,)), SearchConfig(trials=4))
    assert [trial.status for trial in trials] == ["finished", "failed", "finished", "finished"]
    assert trials[1].message == "RuntimeError: on purpose"


def test_nan_figure_is_a_failed_trial():
    class Diverging(QuadraticObjective):
        def evaluate(self, params, report=None):
            result = super().evaluate(params, report)
            result.figures["auc"] *= float("nan") if len(self.seen) == 2 else 1
            return result

    trials = run_search(Diverging(), SearchConfig(trials=3, algorithm="optuna"))
    assert [trial.status for trial in trials] == ["finished", "failed", "finished"]
    assert "training diverged" in trials[1].message


def test_tpe_learns_from_earlier_trials():
    def late_distance(trials):
        return np.mean([abs(trial.params[KEY] - 0.3) for trial in trials[-10:]])

    random = run_search(QuadraticObjective(), SearchConfig(trials=40))
    learned = run_search(QuadraticObjective(), SearchConfig(trials=40, algorithm="optuna"))
    assert late_distance(learned) < 0.6 * late_distance(random)


def test_pruning_stops_worse_trials():
    trials = run_search(QuadraticObjective(), SearchConfig(trials=40, scheduler="asha", grace_period=1))
    sides = [[trial for trial in trials if trial.status == status] for status in ("finished", "stopped")]
    assert len(sides[1]) >= 15
    assert all(0 < max(trial.epochs) <= 9 for trial in sides[1])
    finished, stopped = ([abs(trial.params[KEY] - 0.3) for trial in side] for side in sides)
    assert min(finished) <= min(stopped)
    assert np.mean(finished) < np.mean(stopped)


@pytest.mark.parametrize("options", [{}, {"algorithm": "optuna"}, {"scheduler": "asha", "grace_period": 1}])
@pytest.mark.parametrize("kept", [1, 8, 14])
def test_resumed_search_has_the_same_trials(options, kept):
    search = SearchConfig(trials=15, **options)
    complete = run_search(QuadraticObjective(), search)
    assert content(run_search(QuadraticObjective(), search)) == content(complete)
    assert content(run_search(QuadraticObjective(), search, done=complete[:kept])) == content(complete)


def test_altered_parameters_are_refused():
    search = SearchConfig(trials=3)
    first = run_search(QuadraticObjective(), search)[0]
    with pytest.raises(MIAError, match="other parameters for trial 1"):
        run_search(QuadraticObjective(), search, done=[Trial(1, {KEY: 0.123}, "finished", first.figures)])


def test_time_budget_starts_no_new_trial():
    assert run_search(QuadraticObjective(), SearchConfig(trials=10**18, time_budget=0.2))


def open_log(folder):
    return TrialLog(folder, Space(run_config(), DROPOUT, roots=("attacks",)), metric="auc", higher_is_better=True)


TRIALS = [
    Trial(0, {}, "finished", {"auc": 0.5}, (0.1,), {}, 1.5),
    Trial(1, {KEY: 0.25}, "finished", {"auc": 0.6}, (0.1, 0.2), {3: 0.2}, 1.5),
    Trial(2, {KEY: 0.5}, "stopped", epochs={1: 0.2}),
    Trial(3, {KEY: 0.75}, "failed", message="RuntimeError: no"),
]


@pytest.fixture
def journal(tmp_path):
    log = open_log(tmp_path)
    assert all(log.append(trial) for trial in TRIALS)
    assert not log.append(TRIALS[1])
    return log.path


def test_journal_round_trip(journal):
    assert list(open_log(journal.parent).trials.values()) == TRIALS


def test_journal_without_a_torn_line(journal):
    text = journal.read_bytes()
    last = len(text.splitlines()[-1])
    for cut in (1, 20, last - 2):
        journal.write_bytes(text[:-cut])
        log = open_log(journal.parent)
        assert list(log.trials.values()) == TRIALS[:3]
    log.append(TRIALS[3])
    assert list(open_log(journal.parent).trials.values()) == TRIALS


def test_journal_leaves_no_lock(journal):
    assert os.listdir(journal.parent) == ["trials.jsonl"]


ATTRIBUTES = {"number": 1, "status": "finished", "figures": {"auc": 0.6}, "by_fold": [], "epochs": {}, "seconds": 1.0}


@pytest.mark.parametrize(
    "change",
    [
        lambda line: b"garbage\n",
        lambda line: b"[]\n",
        lambda line: b"[" * 100_000 + b"\n",
        lambda line: b'{"op_code": 99}\n',
        lambda line: line.replace(b'"auc":0.6', b'"auc":"x"'),
        lambda line: line.replace(b'"auc":0.6', b'"auc":NaN'),
        lambda line: line.replace(b'"auc":0.6', b'"auc":1e999'),
        lambda line: line.replace(b'"auc":0.6', b'"auc":' + b"9" * 5000),
        lambda line: line.replace(b'"figures":{"auc":0.6}', b'"figures":[1]'),
        lambda line: line.replace(b'"figures":{"auc":0.6}', b'"figures":{"auc\\u001b[31m":0.6}'),
        lambda line: line.replace(b'"auc":0.6', b'"acc":0.6'),
        lambda line: line.replace(b'"number":1', b'"number":-1'),
        lambda line: line.replace(b'"number":1', b'"number":0'),
        lambda line: line.replace(b'"number":1', b'"number":"1"'),
        lambda line: line.replace(b'"status":"finished"', b'"status":"great"'),
        lambda line: line.replace(b'"status":"finished"', b'"status":"failed"'),
        lambda line: line.replace(b'"status":"finished"', b'"status":[]'),
        lambda line: line.replace(b'"seconds":1.5', b'"seconds":null'),
        lambda line: line.replace(b'"message":""', b'"message":7'),
        lambda line: line.replace(b'"by_fold":[0.1,0.2]', b'"by_fold":"xx"'),
        lambda line: line.replace(b'"epochs":{"3":0.2}', b'"epochs":{"x":0.2}'),
        lambda line: line.replace(b"0.25", b"7.5"),
        lambda line: line.replace(b"0.25", b"true"),
        lambda line: line.replace(KEY.encode(), b"attacks.mlp.unknown"),
        lambda line: re.sub(rb'"user_attrs":.*?"system_attrs"', b'"system_attrs"', line),
    ],
)
def test_altered_journal_error_message(journal, change):
    lines = journal.read_bytes().splitlines(keepends=True)
    index = next(index for index, line in enumerate(lines) if b'"number":1' in line)
    changed = change(lines[index])
    assert changed != lines[index]
    journal.write_bytes(b"".join([*lines[:index], changed, *lines[index + 1 :]]))
    with pytest.raises(MIAError, match=r"trials\.jsonl is damaged") as error:
        open_log(journal.parent)
    assert str(error.value).isprintable()


def test_control_characters_of_a_message(journal):
    journal.write_bytes(journal.read_bytes().replace(b"RuntimeError: no", b"\\u001b[31mno"))
    assert open_log(journal.parent).trials[3].message == "?[31mno"


@pytest.mark.parametrize("make", ["fifo", "link", "folder"])
def test_journal_must_be_a_regular_file(tmp_path, make):
    path, other = tmp_path / "trials.jsonl", tmp_path / "mine.txt"
    other.write_text("mine")
    {"fifo": os.mkfifo, "link": lambda path: path.symlink_to(other), "folder": os.mkdir}[make](path)
    with pytest.raises(MIAError, match=r"trials\.jsonl is not a regular file"):
        open_log(tmp_path)
    assert other.read_text() == "mine"


def test_journal_opens_in_optuna(journal):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study = optuna.load_study(study_name="search", storage=JournalStorage(JournalFileBackend(str(journal))))
    assert study.best_trial.user_attrs["number"] == 1
    assert json.dumps(study.best_params) == json.dumps(TRIALS[1].params)
