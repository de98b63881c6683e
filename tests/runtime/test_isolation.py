"""Results do not depend on the working directory, the home folder or the environment."""

import os
import signal
from dataclasses import replace
from io import StringIO

import lightning as L
import matplotlib
import numpy as np
import pytest
import torch
from helpers.extraction import CPU, Small, extract, small_target, with_statistics
from lightning.pytorch.callbacks import Callback

from mia_lightning.attacks._mlp_training import train_perceptrons
from mia_lightning.attacks.mlp import MLP
from mia_lightning.errors import MIAError
from mia_lightning.report.plots import plot_roc, style
from mia_lightning.runtime.environment import restored_variables, without_variables
from mia_lightning.runtime.hardware import Hardware
from mia_lightning.runtime.interruption import Interrupted, interruptible
from mia_lightning.runtime.trainers import isolated_fabric, isolated_trainer, new_trainer

SLURM = {
    **{"SLURM_JOB_ID": "15042", "SLURM_JOB_NAME": "audit", "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1"},
    **{"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"},
}


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (SLURM | {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NODEID": None}, "SLURM_NODEID is missing"),
        (SLURM | {"SLURM_NTASKS": "2", "SLURM_NNODES": "x"}, "SLURM_NNODES is 'x'; expected a number from 1"),
        ({"LOCAL_WORLD_SIZE": "0", "WORLD_SIZE": "2"}, "LOCAL_WORLD_SIZE is '0'; expected a number from 1"),
        ({"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "many"}, "WORLD_SIZE is 'many'; expected a number from 1"),
    ],
)
def test_broken_launcher_variables_message(variables, sentence, monkeypatch):
    for name, value in variables.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(MIAError, match=sentence):
        new_trainer(Hardware(accelerator="cpu"))


@pytest.fixture
def slurm_job(tmp_path, monkeypatch):
    """A job of SLURM whose working directory has a checkpoint that Lightning would load into any module."""
    torch.manual_seed(1)
    network = with_statistics(Small(), seed=1)
    weights = {f"network.network.{name}": tensor for name, tensor in network.state_dict().items()}
    checkpoint = {
        "state_dict": weights,
        "pytorch-lightning_version": "2.5.0",
        "epoch": 0,
        "global_step": 0,
        "loops": {},
    }
    (tmp_path / "job").mkdir()
    torch.save(checkpoint, tmp_path / "job" / "hpc_ckpt_1.ckpt")
    monkeypatch.chdir(tmp_path / "job")
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)


def fit_scores():
    rng = np.random.default_rng(0)
    inputs, member = rng.normal(size=(64, 3)).astype(np.float32), rng.permutation(np.repeat([0, 1], 32)).astype(np.int8)
    training = MLP(hidden=[4], epochs=3, batch_size=16).training()
    return train_perceptrons(training, inputs, member, seed=0, watched=None).log_odds(inputs)


def assert_equal(outputs, expected):
    for name in ("logits", "features", "labels"):
        np.testing.assert_array_equal(getattr(outputs, name), getattr(expected, name))


@pytest.mark.parametrize("fuse", [True, False])
def test_slurm_checkpoint_is_not_loaded_into_target(tmp_path, request, fuse):
    hardware = Hardware(accelerator="cpu", batch_size=16, fuse=fuse)
    expected, _ = extract(tmp_path / "a", hardware=hardware)
    request.getfixturevalue("slurm_job")
    outputs, _ = extract(tmp_path / "b", hardware=hardware)
    assert_equal(outputs, expected)


def test_slurm_checkpoint_is_not_loaded_into_mlp(request):
    expected = fit_scores()
    request.getfixturevalue("slurm_job")
    np.testing.assert_array_equal(fit_scores(), expected)


class Signaling(Small):
    """A network during whose pass SLURM's signal arrives."""

    def forward(self, images):
        signal.raise_signal(signal.SIGUSR1)
        return super().forward(images)


def test_slurm_signal_interrupts_prediction(slurm_job, tmp_path):
    """Lightning's handler of SIGUSR1 would save a checkpoint and requeue the job."""
    target = replace(small_target(), network=with_statistics(Signaling()))
    with interruptible(), pytest.raises(Interrupted) as interrupted:
        extract(tmp_path / "store", target=target, hardware=replace(CPU, fuse=False))
    assert interrupted.value.exit_code == 128 + signal.SIGUSR1
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["hpc_ckpt_1.ckpt"]


OVERRIDES = {
    "PL_TRAINER_LIMIT_PREDICT_BATCHES": "1",
    "PL_TRAINER_FAST_DEV_RUN": "True",
    "PL_TRAINER_MAX_STEPS": "1",
    "PL_TRAINER_LIMIT_TRAIN_BATCHES": "1",
    "PL_TRAINER_GRADIENT_CLIP_VAL": "0.001",
    "PL_GLOBAL_SEED": "7",
    "LT_CLI_USED": "1",
    "LT_PRECISION": "bf16-mixed",
}


def test_lightning_variables_change_nothing(tmp_path, monkeypatch):
    expected, scores = extract(tmp_path / "a")[0], fit_scores()
    for name, value in OVERRIDES.items():
        monkeypatch.setenv(name, value)
    assert_equal(extract(tmp_path / "b")[0], expected)
    np.testing.assert_array_equal(fit_scores(), scores)
    assert isolated_fabric("cpu").device.type == "cpu"


def test_trainers_ignore_registered_callbacks(tmp_path, monkeypatch):
    metadata = tmp_path / "other-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    groups = ("lightning.pytorch.callbacks_factory", "lightning.fabric.callbacks_factory")
    (metadata / "entry_points.txt").write_text("".join(f"[{group}]\nother = os:getcwd\n" for group in groups))
    monkeypatch.syspath_prepend(tmp_path)
    assert len(L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False).callbacks) > 2  # a path, even
    ours = isolated_trainer(accelerator="cpu", devices=1).callbacks
    assert all(isinstance(callback, Callback) for callback in ours)
    assert isolated_fabric("cpu").device.type == "cpu"


def test_fabric_precision_is_as_given(monkeypatch):
    monkeypatch.setenv("LT_CLI_USED", "1")
    monkeypatch.setenv("LT_PRECISION", "bf16-mixed")
    with isolated_fabric("cpu").autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == torch.float32


def test_trainer_saves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = isolated_trainer(accelerator="cpu", devices=1, max_epochs=1)
    assert trainer.loggers == []
    assert trainer.checkpoint_callbacks == []
    fit_scores()
    extract(tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_variables_are_hidden_and_restored(monkeypatch):
    monkeypatch.setenv("PL_TRAINER_DEVICES", "3")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with without_variables("PL_"), restored_variables("MASTER_PORT"):
        assert "PL_TRAINER_DEVICES" not in os.environ
        os.environ["MASTER_PORT"] = "1"
    assert os.environ["PL_TRAINER_DEVICES"] == "3"
    assert "MASTER_PORT" not in os.environ


def roc_figure():
    scores, member = np.random.default_rng(0).normal(size=200), np.repeat([0, 1], 100).astype(np.int8)
    svg = StringIO()
    figure = plot_roc({"attack": scores}, member)
    with style():
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


def test_matplotlibrc_does_not_change_figures():
    expected = roc_figure()
    with matplotlib.rc_context({"axes.facecolor": "red", "lines.linewidth": 9, "font.size": 30, "savefig.dpi": 7}):
        assert roc_figure() == expected
