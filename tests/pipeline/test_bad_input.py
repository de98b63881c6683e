"""A user's mistake: one clear sentence, exit code 2, nothing half-written."""

import copy
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from helpers.datasets import write_pickled

from mia_lightning.cli import train


def replace(arguments, option, value):
    arguments = list(arguments)
    if option in arguments:
        arguments[arguments.index(option) + 1] = str(value)
        return arguments
    return [*arguments, option, str(value)]


def public_with(task, path, **changes):
    """Write the public file with some of its columns changed."""
    from mia_lightning.records.readers import read_records

    records = read_records(str(task.folder / "pub.pt"))
    columns = {
        "ids": records.ids.tolist(),
        "imgs": list(torch.from_numpy(records.images)),
        "labels": records.labels.tolist(),
        "membership": records.membership.tolist(),
    }
    for name, change in changes.items():
        columns[name] = change(columns[name])
    write_pickled(path, *columns.values())
    return path


def set_at(values, index, value):
    values = copy.copy(values)
    values[index] = value
    return values


class Executes:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def missing(task, folder):
    return "--data.public", folder / "nowhere.pt"


def truncated(task, folder):
    data = (task.folder / "pub.pt").read_bytes()
    (folder / "cut.pt").write_bytes(data[: len(data) // 2])
    return "--data.public", folder / "cut.pt"


def executes_code(task, folder):
    with zipfile.ZipFile(folder / "evil.pt", "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps(Executes(folder / "canary"), protocol=2))
        archive.writestr("evil/version", "3\n")
    return "--data.public", folder / "evil.pt"


def duplicate_ids(task, folder):
    return "--data.public", public_with(task, folder / "p.pt", ids=lambda v: [*v[:-1], v[0]])


def id_in_both_halves(task, folder):
    return "--data.private", task.folder / "pub.pt"


def shapes_differ(task, folder):
    change = lambda v: set_at(v, 3, torch.zeros(3, 28, 28))  # noqa: E731
    return "--data.public", public_with(task, folder / "p.pt", imgs=change)


def halves_of_different_shape(task, folder):
    return "--data.public", public_with(task, folder / "p.pt", imgs=lambda v: [image[:1] for image in v])


def wrong_channels(task, folder):
    state = torch.load(task.folder / "01_MIA.pt", weights_only=True)
    state["conv1.weight"] = state["conv1.weight"][:, :1].clone()
    torch.save(state, folder / "gray.pt")
    return "--target.checkpoint", folder / "gray.pt"


def too_small_for_target(task, folder):
    torch.save({"fc.weight": torch.zeros(4, 7)}, folder / "odd.pt")
    return "--target.checkpoint", folder / "odd.pt"


def label_outside(task, folder):
    return "--data.public", public_with(task, folder / "p.pt", labels=lambda v: set_at(v, 5, 9))


def nan_pixel(task, folder):
    change = lambda v: set_at(v, 2, torch.full((3, 32, 32), torch.nan))  # noqa: E731
    return "--data.public", public_with(task, folder / "p.pt", imgs=change)


def infinite_pixel(task, folder):
    change = lambda v: set_at(v, 2, torch.full((3, 32, 32), torch.inf))  # noqa: E731
    return "--data.public", public_with(task, folder / "p.pt", imgs=change)


def nan_weight(task, folder):
    state = torch.load(task.folder / "01_MIA.pt", weights_only=True)
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = torch.nan
    torch.save(state, folder / "nan.pt")
    return "--target.checkpoint", folder / "nan.pt"


def infinite_logits(task, folder):
    state = torch.load(task.folder / "01_MIA.pt", weights_only=True)
    state["fc.weight"] = state["fc.weight"] * 1e38
    torch.save(state, folder / "huge.pt")
    return "--target.checkpoint", folder / "huge.pt"


def one_membership_value(task, folder):
    return "--data.public", public_with(task, folder / "p.pt", membership=lambda v: [1] * len(v))


def fewer_records_than_folds(task, folder):
    few = {name: (lambda v: v[:6]) for name in ("ids", "imgs", "labels")}
    path = public_with(task, folder / "p.pt", **few, membership=lambda v: [1, 0, 1, 0, 1, 0])
    return "--data.public", path


def other_run_in_output(task, folder):
    output = folder / "taken"
    output.mkdir()
    (output / "config.yaml").write_text("seed: 1\n")
    return "--output", output


def other_files_in_output(task, folder):
    output = folder / "mine"
    output.mkdir()
    (output / "thesis.tex").write_text("")
    return "--output", output


def option_of_wrong_type(task, folder):
    return "--hardware.batch_size", "many"


def unknown_signal(task, folder):
    return "--signals.names", "[phii]"


def unknown_column(task, folder):
    return "--attacks.mlp.columns", "[phi, entropi]"


def wrong_mean(task, folder):
    return "--data.mean", "[0.5, 0.5]"


CASES = {
    missing: "nowhere.pt",
    truncated: "cut.pt",
    executes_code: "system",
    duplicate_ids: "ids must be unique",
    id_in_both_halves: "occur in both",
    shapes_differ: "p.pt",
    halves_of_different_shape: "both halves must fit one target",
    wrong_channels: "channels",
    too_small_for_target: "odd.pt",
    label_outside: "label 9",
    nan_pixel: "NaN or infinite pixels",
    infinite_pixel: "NaN or infinite pixels",
    nan_weight: "layer2.0.conv1.weight",
    infinite_logits: "infinite",
    one_membership_value: "only members",
    fewer_records_than_folds: "fewer than the 5 folds",
    other_run_in_output: "holds another run",
    other_files_in_output: "thesis.tex",
    option_of_wrong_type: "batch_size",
    unknown_signal: "did you mean 'phi'",
    unknown_column: "did you mean 'entropy'",
    wrong_mean: "mean",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_one_sentence_and_nothing_left(case, task, tmp_path, capsys):
    option, value = case(task, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    arguments = replace([*task.arguments, "--output", str(tmp_path / "out")], option, value)
    assert train(arguments) == 2
    error = capsys.readouterr().err
    last = error.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert CASES[case] in last
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and ".store" not in path.parts}
    assert kept == before, "a refused run changed files"


def test_missing_labels_are_predicted_and_noted(task, tmp_path, capsys):
    path = public_with(task, tmp_path / "p.pt", labels=lambda v: [None] * len(v))
    assert train([*replace(task.arguments, "--data.public", path), "--output", str(tmp_path / "out")]) == 0
    assert "p.pt: 240 records have no label; the target's predicted class is used" in capsys.readouterr().out


def test_unknown_membership_and_class_with_one_member(task, tmp_path, capsys):
    labels = lambda v: [3 if i == 0 else y % 3 for i, y in enumerate(v)]  # noqa: E731
    change = lambda v: [1, *v[1:200], *[None] * 40]  # noqa: E731
    path = public_with(task, tmp_path / "p.pt", labels=labels, membership=change)
    assert train([*replace(task.arguments, "--data.public", path), "--output", str(tmp_path / "out")]) == 0
    assert "40 of 240 records have no known membership" in capsys.readouterr().out
    rows = (tmp_path / "out" / "scores.csv").read_text().splitlines()
    assert sum(",public,," in row for row in rows) == 40
    assert np.isfinite([float(row.split(",")[4]) for row in rows[1:]]).all()
