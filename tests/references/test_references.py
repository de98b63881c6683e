"""Reference models: who trains on what, trainings that are killed and go on, a store that cannot lie."""

import csv
import os
import signal
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.forked import PATIENCE, Forked, python
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mia_lightning import audit, load_config
from mia_lightning.errors import MIAError
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.outputs.views import views
from mia_lightning.pipeline.audit import prepare
from mia_lightning.pipeline.run import run
from mia_lightning.records.records import Records
from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.exchange import load_reference_outputs, save_reference_outputs
from mia_lightning.references.fidelity import training_checks
from mia_lightning.references.inference import compute_phi
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.phi import target_phi, view_columns
from mia_lightning.references.scores.lira import LiRA
from mia_lightning.references.splits import assign, content_order
from mia_lightning.references.store import ReferenceRecord, ReferenceStore
from mia_lightning.references.training import (
    DivergedError,
    _batches,
    _shifted,
    train_reference,
    with_small_convolutions,
)
from mia_lightning.references.training_data import ImageParts, Normalize, TrainingData
from mia_lightning.references.workers import LOSSES, Losses, weight_of
from mia_lightning.runtime.store import array_digest
from mia_lightning.targets.architectures import untrained

DEMO = "configs/demo.yaml"


def overrides(tmp_path, count, **references):
    """The demo with references of its own small network, and attacks that take no time."""
    return {
        "output": str(tmp_path / "run"),
        "extraction": {"queries": 2},
        "signals": {"names": ["phi", "loss"]},
        "attacks": {
            "mlp": None,
            "lightgbm": None,
            "fusion": None,
            "gaussian": None,
            "class_p_value": None,
            "calibrated": {"class_path": "Threshold", "init_args": {"column": "calibration"}},
        },
        "submission": {"attack": "calibrated"},
        "references": {
            "count": count,
            "architecture": "mia_lightning.targets.demo:digits_network",
            "training": {"epochs": 3, "batch_size": 64, "learning_rate": 0.05, "flip": False},
            "scores": {"calibration": {"class_path": "DifficultyCalibration"}},
            **references,
        },
    }


def material(n=200, side=8, queries=2, seed=0):
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (n, 3, side, side), dtype=np.uint8)
    return TrainingData(images, draw.integers(0, 4, n), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25), 4, queries)


def small_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


class TestAssignment:
    @given(st.integers(1, 12), st.integers(2, 40), st.integers(0, 1000), st.sampled_from(["balanced", "bernoulli"]))
    @settings(max_examples=40)
    def test_more_references_keep_the_first_ones(self, count, n, seed, scheme):
        member = np.full(n, -1, np.int8)
        few = assign(scheme, count, member, private=0, seed=seed)
        more = assign(scheme, count + 3, member, private=0, seed=seed)
        np.testing.assert_array_equal(more.keep[:count], few.keep)
        assert few.drawn.all()

    @given(st.integers(1, 6), st.integers(2, 61), st.integers(0, 1000))
    @settings(max_examples=40)
    def test_balanced_is_balanced_for_records_and_models(self, pairs, n, seed):
        keep = assign("balanced", 2 * pairs, np.full(n, -1, np.int8), private=0, seed=seed).keep
        assert (keep.sum(axis=0) == pairs).all()
        assert (np.abs(2 * keep.sum(axis=1) - n) <= 1).all()

    def test_halves_are_independent_of_membership_and_of_each_other(self):
        member = np.arange(20_000) % 2
        keep = assign("balanced", 8, member.astype(np.int8), private=0, seed=3).keep.astype(float)
        correlation = np.corrcoef(np.vstack([member, keep[::2]]))
        assert np.abs(correlation - np.eye(5)).max() < 4 / np.sqrt(20_000)

    def test_anchored(self):
        member = np.array([1] * 4000 + [0] * 4000 + [-1] * 1000 + [1] * 3000, np.int8)  # the last are private
        drawn = assign("anchored", 16, member, private=3000, seed=0)
        fixed = ~drawn.drawn
        assert not fixed[:, 8000:].any()
        assert drawn.keep[:, :4000][fixed[:, :4000]].all()
        assert not drawn.keep[:, 4000:8000][fixed[:, 4000:8000]].any()
        assert drawn.drawn[:, :8000].mean() == pytest.approx(0.25, abs=0.01)
        for records in (slice(0, 4000), slice(4000, 8000)):  # a coin of a released record knows nothing of membership
            released = drawn.keep[:, records][drawn.drawn[:, records]]
            assert released.mean() == pytest.approx(0.5, abs=0.02)

    def test_private_membership_is_never_read(self):
        member = np.array([1, 0] * 500, np.int8)
        first = assign("anchored", 16, member, private=400, seed=0)
        member[600:] = 1 - member[600:]
        second = assign("anchored", 16, member, private=400, seed=0)
        np.testing.assert_array_equal(first.keep, second.keep)

    def test_too_few_for_anchored(self):
        with pytest.raises(MIAError, match=r"raise --references.count to 16"):
            assign("anchored", 4, np.zeros(10, np.int8), private=0, seed=0)

    @pytest.mark.parametrize("scheme", ["balanced", "bernoulli", "anchored"])
    def test_draws_follow_content_not_position(self, scheme):
        rng = np.random.default_rng(0)
        member = rng.integers(0, 2, 60).astype(np.int8)
        images = rng.integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
        draws = []
        for shuffle in (np.arange(60), np.argsort(member, kind="stable")):
            halves = [records(images[rows], member[rows], rows) for rows in (shuffle[shuffle < 40], np.arange(40, 60))]
            order, given = content_order(*halves), np.concatenate([half.membership for half in halves])
            drawn = assign(scheme, 16, given, private=20, seed=1, order=order)
            back = np.argsort(np.concatenate([half.ids for half in halves]))
            draws.append((drawn.keep[:, back], drawn.drawn[:, back]))
        np.testing.assert_array_equal(draws[0], draws[1])


def records(images, member, ids):
    return Records(ids, images, np.zeros(len(ids), np.int64), member, "test")


class TestTraining:
    def test_a_shuffled_copy_leads_to_the_same_weights(self, tmp_path):
        data, keep, shuffle = material(), np.arange(200) % 3 > 0, np.random.default_rng(1).permutation(200)
        copy = replace(data, images=data.images[shuffle], labels=data.labels[shuffle], order=np.argsort(shuffle))
        recipe = ReferenceTraining(epochs=2, batch_size=32)
        states = [
            train_reference(
                small_network(), given, kept, recipe, seed=5, checkpoint=tmp_path / str(number), device="cpu"
            ).state_dict()
            for number, (given, kept) in enumerate([(data, keep), (copy, keep[shuffle])])
        ]
        for name, value in states[0].items():
            assert torch.equal(value, states[1][name])

    def test_small_convolutions_equal_torch(self):
        first, second = small_network(), with_small_convolutions(small_network(), (3, 8, 8))
        assert type(second[3]) is not nn.Conv2d
        assert list(first.state_dict()) == list(second.state_dict())
        images = torch.randn(5, 3, 8, 8)
        for network in (first, second):
            network.train()(images).square().sum().backward()
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)

    def test_shifts_equal_padding_and_cropping_each_image(self):
        images, shift = torch.randn(20, 3, 8, 8), torch.randint(-2, 3, (2, 20))
        shifted = _shifted(images, shift, 2)
        padded = nn.functional.pad(images, (2, 2, 2, 2), mode="reflect")
        for i, (down, right) in enumerate(shift.T.tolist()):
            torch.testing.assert_close(shifted[i], padded[i, :, 2 + down : 10 + down, 2 + right : 10 + right])

    def test_an_epoch_shows_each_record_once_and_normalized(self):
        data = material(n=70)
        images = torch.from_numpy(data.images)
        rows = torch.arange(0, 70, 2)
        recipe = ReferenceTraining(batch_size=7, flip=False)
        seen = [(i, b) for i, b in _batches(images, rows, data, recipe, seed=1, epoch=0)]
        index = torch.cat([i for i, _ in seen])
        assert sorted(index.tolist()) == rows.tolist()
        expected = (data.images[index] / 255 - np.reshape(data.mean, (3, 1, 1))) / np.reshape(data.std, (3, 1, 1))
        np.testing.assert_allclose(torch.cat([b for _, b in seen]).numpy(), expected, atol=1e-5)
        again = torch.cat([i for i, _ in _batches(images, rows, data, recipe, seed=1, epoch=1)])
        assert not torch.equal(index, again)

    def test_going_on_after_a_kill_gives_the_same_weights(self, tmp_path):
        data, keep, recipe = material(), np.arange(200) < 100, ReferenceTraining(epochs=4, batch_size=20, shift=1)

        def train(name, stop=None):
            def on_epoch(epoch, loss):
                if epoch == stop:
                    raise KeyboardInterrupt

            return train_reference(
                small_network(), data, keep, recipe, seed=5, checkpoint=tmp_path / name, device="cpu", on_epoch=on_epoch
            ).state_dict()

        whole = train("whole")
        with pytest.raises(KeyboardInterrupt):
            train("cut", stop=2)
        assert (tmp_path / "cut").exists()
        for name, tensor in train("cut").items():
            assert torch.equal(tensor, whole[name]), name

    @pytest.mark.parametrize("form", ["two arrays", "memory map"])
    def test_mapped_images_give_the_same_weights_and_phi(self, tmp_path, form):
        resident = material(n=120)
        if form == "memory map":
            mapped = np.memmap(tmp_path / "images", np.uint8, mode="w+", shape=resident.images.shape)
            mapped[:] = resident.images
            mapped = np.memmap(tmp_path / "images", np.uint8, mode="r", shape=resident.images.shape)
        else:
            mapped = ImageParts((resident.images[:50], resident.images[50:]))
        assert array_digest(mapped) == array_digest(resident.images)
        recipe = ReferenceTraining(epochs=2, batch_size=20, shift=1)
        trained = []
        for number, data in enumerate((resident, replace(resident, images=mapped))):
            options = {"seed": 5, "checkpoint": tmp_path / str(number), "device": "cpu"}
            network = train_reference(small_network(), data, np.arange(120) % 2 == 0, recipe, **options)
            trained.append((network.state_dict(), compute_phi(network, data, device="cpu")))
        for name, tensor in trained[0][0].items():
            assert torch.equal(tensor, trained[1][0][name]), name
        np.testing.assert_array_equal(trained[0][1].phi, trained[1][1].phi)

    def test_a_damaged_checkpoint_is_as_good_as_none(self, tmp_path, caplog):
        data, keep, recipe = material(), np.arange(200) < 100, ReferenceTraining(epochs=2, batch_size=20)
        options = {"seed": 5, "checkpoint": tmp_path / "c", "device": "cpu"}
        whole = train_reference(small_network(), data, keep, recipe, **options).state_dict()
        payload = bytearray((tmp_path / "c").read_bytes())
        payload[len(payload) // 2] ^= 1
        (tmp_path / "c").write_bytes(payload)
        again = train_reference(small_network(), data, keep, recipe, **options).state_dict()
        assert "damaged" in caplog.text
        assert all(torch.equal(again[name], whole[name]) for name in whole)

    def test_divergence_is_an_error_of_its_own(self, tmp_path):
        recipe = ReferenceTraining(epochs=3, batch_size=20, learning_rate=1e30, schedule="constant")
        with pytest.raises(DivergedError, match="loss became"):
            train_reference(
                small_network(), material(), np.ones(200, bool), recipe, seed=0, checkpoint=tmp_path / "c", device="cpu"
            )

    def test_fewer_records_than_a_batch(self, tmp_path):
        with pytest.raises(MIAError, match=r"lower --references.training.batch_size"):
            train_reference(
                small_network(),
                material(20),
                np.ones(20, bool),
                ReferenceTraining(),
                seed=0,
                checkpoint=tmp_path / "c",
                device="cpu",
            )

    def test_phi_is_that_of_a_plain_forward_pass(self):
        data, network = material(n=300, queries=18), small_network().eval()
        result = compute_phi(network, data, device="cpu")
        inputs = Normalize(data, torch.from_numpy(data.images))(torch.from_numpy(data.images))
        with torch.no_grad():
            for query, view in enumerate(views(inputs, 18)):
                p = torch.softmax(network(view).double(), dim=1)[torch.arange(300), torch.from_numpy(data.labels)]
                np.testing.assert_allclose(result.phi[:, query], torch.log(p / (1 - p)).numpy(), atol=1e-4)

    def test_phi_at_another_temperature(self):
        data, network = replace(material(n=100, queries=1), temperature=2.0), small_network().eval()
        result = compute_phi(network, data, device="cpu").phi
        inputs = Normalize(data, torch.from_numpy(data.images))(torch.from_numpy(data.images))
        with torch.no_grad():
            logits = network(inputs)
        p = torch.softmax(logits.double() / 2, dim=1)[torch.arange(100), torch.from_numpy(data.labels)]
        expected = torch.log(p / (1 - p)).numpy()
        np.testing.assert_allclose(result[:, 0], expected, atol=1e-4)
        outputs = Outputs(logits[:, None].numpy(), *(np.empty((100, 0), np.float32),) * 2, data.labels)
        np.testing.assert_allclose(target_phi(outputs, 1, temperature=2.0)[:, 0], expected, atol=1e-5)

    def test_untrained_networks_differ_by_seed_only(self):
        like = untrained("resnet18", 10, {}, seed=9).state_dict()
        stem = dict(like) | {"conv1.weight": torch.zeros(64, 3, 3, 3)}
        first, again, other = (untrained("resnet18 (CIFAR stem)", 10, stem, seed=s).state_dict() for s in (1, 1, 2))
        assert first["conv1.weight"].shape == (64, 3, 3, 3)
        assert torch.equal(first["conv1.weight"], again["conv1.weight"])
        assert not torch.equal(first["conv1.weight"], other["conv1.weight"])

    def test_function_returning_target_is_refused(self):
        like = untrained("mia_lightning.targets.demo:digits_network", 10, {}, seed=0).state_dict()
        with pytest.raises(MIAError, match="as it was trained"):  # a function that gives those very weights again
            untrained("mia_lightning.targets.demo:digits_network", 10, like, seed=0)
        untrained("mia_lightning.targets.demo:digits_network", 10, like, seed=1)

    def test_exported_program_is_refused(self):
        with pytest.raises(MIAError, match=r"--references.architecture"):
            untrained("torch.export", 10, {}, seed=0)


class TestStore:
    def place(self, tmp_path, **changed):
        return ReferenceStore(tmp_path, training={"a": 1} | changed, inference={"q": 2}, records=50, queries=2)

    def test_flipped_bit_in_finished_reference(self, tmp_path):
        place, phi = self.place(tmp_path), np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
        place.open(np.zeros((3, 50), bool), weights_bytes=10)
        place.finish(ReferenceRecord(1, "trained", 0.9, 0.5), phi)
        assert place.row(1).accuracy_in == 0.9
        assert place.row(0) is None
        np.testing.assert_array_equal(place.matrix(3)[1], phi)
        with place.phi.open("r+b") as file:
            file.seek(50 * 2 * 4 + 7)
            file.write(b"\xff")
        assert place.row(1) is None
        assert place.has_description(1)

    def test_more_references_keep_what_is_there(self, tmp_path):
        place, phi = self.place(tmp_path), np.ones((50, 2), np.float32)
        place.open(np.zeros((1, 50), bool), weights_bytes=10)
        place.finish(ReferenceRecord(0, "trained"), phi)
        place.open(np.zeros((9, 50), bool), weights_bytes=10)
        np.testing.assert_array_equal(place.matrix(9)[0], phi)
        assert place.row(0) is not None

    def test_damaged_weights_are_not_loaded(self, tmp_path):
        place = self.place(tmp_path)
        place.open(np.zeros((1, 50), bool), weights_bytes=10)
        state = small_network().state_dict()
        place.save_weights(0, state)
        assert all(torch.equal(tensor, state[name]) for name, tensor in place.load_weights(0, state).items())
        path = place.folder / "0000.safetensors"
        payload = bytearray(path.read_bytes())
        payload[-5] ^= 1
        path.write_bytes(payload)
        assert place.load_weights(0, state) is None

    def test_other_data_is_another_folder(self, tmp_path):
        assert self.place(tmp_path).folder != self.place(tmp_path, a=2).folder

    def test_full_disk_is_reported_before_training(self, tmp_path):
        with pytest.raises(MIAError, match="GiB left"):
            self.place(tmp_path).open(np.zeros((4, 50), bool), weights_bytes=2**60)

    def test_a_full_disk_leaves_nothing_finished(self, tmp_path, monkeypatch):
        place = self.place(tmp_path)
        place.open(np.zeros((1, 50), bool), weights_bytes=10)

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(MIAError, match="No space left"):
            place.finish(ReferenceRecord(0, "trained"), np.ones((50, 2), np.float32))
        monkeypatch.undo()
        assert place.row(0) is None


class TestReferenceOutputs:
    def test_views_of_a_smaller_set(self):
        image = torch.randn(1, 3, 16, 16)
        larger, smaller = list(views(image, 50)), list(views(image, 18))
        for index, view in zip(view_columns(50, 18), smaller, strict=True):
            torch.testing.assert_close(larger[index], view)

    def test_more_views_than_target_queries(self):
        with pytest.raises(MIAError, match=r"--extraction.queries to 18"):
            view_columns(2, 18)

    def test_unlike_references_are_named_with_the_fix(self):
        rows = (
            ReferenceRecord(0, "trained", 0.80, 0.70),
            ReferenceRecord(1, "diverged", reason="its loss became nan in epoch 1"),
        )
        options = {"accuracy_on_members": 0.99, "accuracy_on_non_members": 0.71, "tolerance": 0.05}
        checks = training_checks(rows, **options)
        assert [check.status for check in checks] == ["warned", "failed", "passed"]
        assert "reference 1 is left out" in checks[0].detail
        assert "19.0 points less accurate" in checks[1].detail
        assert "more epochs" in checks[1].detail

    def test_npz_comes_back(self, tmp_path):
        draw = np.random.default_rng(0)
        reference_outputs = ReferenceOutputs(
            draw.normal(size=(9, 2)).astype(np.float32),
            draw.normal(size=(4, 9, 2)).astype(np.float32),
            draw.random((4, 9)) < 0.5,
            np.arange(9),
            9,
            draw.random((4, 9)) < 0.8,
        )
        save_reference_outputs(tmp_path / "phi.npz", reference_outputs)
        loaded = load_reference_outputs(str(tmp_path / "phi.npz"), labels=np.arange(9), num_classes=9)
        for name in ("target", "references", "keep", "drawn"):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(reference_outputs, name))
        with pytest.raises(MIAError, match="another data set"):
            load_reference_outputs(str(tmp_path / "phi.npz"), labels=np.arange(9)[::-1], num_classes=9)
        with pytest.raises(MIAError, match="for the 8 records"):
            load_reference_outputs(str(tmp_path / "phi.npz"), labels=np.arange(8), num_classes=9)

    @pytest.mark.parametrize(
        ("arrays", "sentence"),
        [
            ({"phi": np.zeros((2, 3))}, "no array 'keep'"),
            ({"phi": np.full((2, 3), np.nan), "keep": np.ones((2, 3)), "target": np.ones(3)}, "finite"),
            ({"phi": np.zeros((2, 3)), "keep": np.full((2, 3), 2), "target": np.ones(3)}, "only 0 and 1"),
            ({"phi": np.array([[object()]]), "keep": 0, "target": 0}, "plain numbers"),
        ],
    )
    def test_bad_npz(self, tmp_path, arrays, sentence):
        np.savez(tmp_path / "phi.npz", **arrays)
        with pytest.raises(MIAError, match=sentence):
            load_reference_outputs(str(tmp_path / "phi.npz"), labels=np.zeros(3, int), num_classes=2)


def matrix_of(tmp_path):
    (path,) = (tmp_path / ".store").glob("references/*/phi-*/phi.float32")
    return np.fromfile(path, np.float32)


def started_trainings(caplog):
    return [record.message for record in caplog.records if record.message.startswith("references: ")]


class TestRuns:
    def test_a_run_with_references_and_a_top_up(self, tmp_path, caplog):
        caplog.set_level("INFO")
        result = audit(load_config(DEMO, **overrides(tmp_path, 2)))
        assert [row.status for row in result.references] == ["trained"] * 2
        assert result.attacks["calibrated"].public.auc > 0.5
        first = matrix_of(tmp_path)
        caplog.clear()
        result = audit(load_config(DEMO, **overrides(tmp_path, 3)))
        assert any("2 of 3 are in the store" in line for line in started_trainings(caplog))
        np.testing.assert_array_equal(matrix_of(tmp_path)[: len(first)], first)
        (keep,) = (tmp_path / ".store").glob("references/*/keep.npy")
        audit(load_config(DEMO, **overrides(tmp_path, 1)))
        assert len(np.load(keep)) == 3  # fewer references later leave the others' rows

    def test_each_record_gets_score_p_value_and_standard_error(self, tmp_path):
        scores = {"lira": {"class_path": "LiRA"}, "calibration": {"class_path": "DifficultyCalibration"}}
        config = load_config(DEMO, **overrides(tmp_path, 4, scores=scores))
        result = run(config)
        with (tmp_path / "run" / "references.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        columns = ["calibration", "calibration_standard_error"]
        assert list(rows[0]) == ["id", "split", "lira", "lira_p_value", "lira_standard_error", *columns]
        assert [int(row["id"]) for row in rows] == [*result.public.ids, *result.private.ids]
        expected = LiRA().columns(result.reference_outputs)
        for name in ("", "_p_value", "_standard_error"):
            found = [float(row[f"lira{name}"]) for row in rows]
            np.testing.assert_array_equal(found, expected[name.removeprefix("_")])

    def test_a_recipe_that_diverges_is_left_out_or_refused(self, tmp_path):
        recipe = {"epochs": 1, "batch_size": 64, "learning_rate": 1e30, "schedule": "constant"}
        with pytest.raises(MIAError, match=r"all 1 references diverged .* lower --references.training.learning_rate"):
            audit(load_config(DEMO, **overrides(tmp_path, 1, training=recipe)))

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"count": 0}, "there are no references"),
            ({"queries": 18}, "raise --extraction.queries to 18"),
            ({"scheme": "anchored"}, "raise --references.count"),
            ({"architecture": None}, "as it was trained"),
            ({"scores": {"phi": {"class_path": "LiRA"}}}, "has the same name as a signal"),
            ({"scores": {"calibration": {"class_path": "LiRA"}}, "count": 2}, "at least 3 references"),
            ({"architecture": "torchvision:resnet999"}, r"--references.architecture torchvision:resnet999: "),
            (
                {"scores": {"s": {"class_path": "DifficultyCalibration", "init_args": {"statistic": "spread"}}}},
                "score 's': .*--extraction.queries 18",
            ),
            ({"exported": "no/such/folder/phi.npz"}, "--references.exported"),
            ({"training": {"batch_size": 4096}}, "lower --references.training.batch_size"),
            ({"training": {"epochs": 0}}, "at least 1"),
            ({"temperature": 0}, "temperature must be above 0"),
            ({"imported": "nowhere.npz"}, "nowhere.npz"),
        ],
    )
    def test_mistakes(self, tmp_path, changes, sentence):
        with pytest.raises(MIAError, match=sentence):
            prepare(load_config(DEMO, **overrides(tmp_path, **{"count": 1} | changes)))  # before any query

    @pytest.mark.extended
    def test_exported_phi_gives_the_same_scores(self, tmp_path):
        path = str(tmp_path / "phi.npz")
        first = audit(load_config(DEMO, **overrides(tmp_path, 2, exported=path)))
        with np.load(path) as stored:
            np.testing.assert_array_equal(stored["phi"].ravel(), matrix_of(tmp_path))
        second = audit(load_config(DEMO, **overrides(tmp_path, 0, imported=path)))
        np.testing.assert_array_equal(
            first.attacks["calibrated"].public_scores, second.attacks["calibrated"].public_scores
        )

    def test_folder_of_checkpoints_is_queried(self, tmp_path):
        first = audit(load_config(DEMO, **overrides(tmp_path, 2)))
        outputs, folder = first.reference_outputs, tmp_path / "models"
        for number, path in enumerate(sorted((tmp_path / ".store").glob("references/*/*.safetensors"))):
            (folder / f"model_{number}").mkdir(parents=True)
            path.rename(folder / f"model_{number}" / "weights.safetensors")
        np.save(folder / "keep.npy", outputs.keep)
        second = audit(load_config(DEMO, **overrides(tmp_path, 0, imported=str(folder))))
        np.testing.assert_array_equal(second.reference_outputs.references, outputs.references)
        np.testing.assert_array_equal(second.reference_outputs.keep, outputs.keep)

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path):
        with pytest.raises(MIAError, match=r"name another --references\.exported"):
            save_reference_outputs(tmp_path / "nowhere" / "phi.npz", simple_evidence())


def simple_evidence():
    return ReferenceOutputs(
        np.zeros((3, 1), np.float32), np.zeros((2, 3, 1), np.float32), np.eye(2, 3) > 0, np.arange(3), 3
    )


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from mia_lightning.references.config import ReferenceTraining, ReferencesConfig
from mia_lightning.references.training_data import TrainingData
from mia_lightning.references.store import ReferenceStore
from mia_lightning.references.networks import NetworkFactory
from mia_lightning.references.workers import ReferenceJob, train_references
from mia_lightning.targets.base import TargetForm

folder, epochs, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
draw = np.random.default_rng(0)
images, labels = draw.integers(0, 256, (300, 1, 8, 8), dtype=np.uint8), draw.integers(0, 10, 300)
material = TrainingData(images, labels, (0.5,), (0.5,), 10, 2)
keep = draw.random((2, 300)) < 0.5
store = ReferenceStore(folder / ".store", training={}, inference={}, records=300, queries=2)
store.open(keep, weights_bytes=1000)
network = NetworkFactory("mia_lightning.targets.demo:digits_network", 10, {}, TargetForm(), {})
recipe = ReferenceTraining(epochs=epochs, batch_size=8, learning_rate=0.02)
jobs = [ReferenceJob(k, keep[k], k, recipe, network, store, "cpu") for k in range(2) if store.row(k) is None]
train_references(jobs, material, ReferencesConfig(workers=workers))
"""


def run_script(folder, epochs, workers=0):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return Forked(python(["-c", SCRIPT, folder, epochs, workers]), env=environment)


def wait_for(pattern, folder, process):
    for _ in range(20 * PATIENCE):
        if found := list(folder.glob(pattern)):
            return found
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} after {PATIENCE} s")


def worker_below(driver):
    """Return the process of a Ray worker that a driver started, not one of another driver on this machine."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    parents, workers = {}, []
    for line in listed.splitlines():
        pid, parent, command = line.split(maxsplit=2)
        parents[int(pid)] = int(parent)
        if command.startswith("ray::_in_worker"):
            workers.append(int(pid))
    for worker in workers:
        above = worker
        while above > 1 and above != driver:
            above = parents.get(above, 0)
        if above == driver:
            return worker
    raise AssertionError("no worker of this driver is running")


class TestLosses:
    def test_losses_with_progress_do_not_count(self):
        losses = Losses()
        for second in range(1, 100):
            losses.add(bytes([second]), "WorkerCrashedError")
        assert losses.count == 1

    def test_losses_without_progress_end_the_run(self):
        losses = Losses()
        for _ in range(LOSSES - 1):
            losses.add(b"epoch 7", "WorkerCrashedError")
        with pytest.raises(MIAError, match=r"lost 5 times .* lower --references.workers"):
            losses.add(b"epoch 7", "WorkerCrashedError")

    def test_lost_machines_do_not_count(self):
        from ray import exceptions

        losses = Losses()
        for _ in range(100):
            losses.add(b"", "NodeDiedError", weight_of(exceptions.NodeDiedError("preempted")))
        killed = weight_of(exceptions.WorkerCrashedError())
        for _ in range(19):
            losses.add(b"", "WorkerCrashedError", killed)
        with pytest.raises(MIAError, match="lost 20 times without finishing an epoch"):
            losses.add(b"", "WorkerCrashedError", killed)
        assert weight_of(exceptions.OutOfMemoryError("memory")) == 1


class TestKills:
    def test_a_killed_training_goes_on_with_equal_phi(self, tmp_path):
        whole, cut = tmp_path / "whole", tmp_path / "cut"
        process = run_script(whole, 20)
        assert process.wait() == 0, process.stderr.read()
        process = run_script(cut, 20)
        wait_for(".store/references/*/0001.checkpoint", cut, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        (weights,) = (cut / ".store").glob("references/*/0000.safetensors")
        trained_at = weights.stat().st_mtime_ns
        process = run_script(cut, 20)
        assert process.wait() == 0, process.stderr.read()
        assert weights.stat().st_mtime_ns == trained_at  # nothing is trained twice
        np.testing.assert_array_equal(matrix_of(cut), matrix_of(whole))

    @pytest.mark.slow
    @pytest.mark.extended
    def test_ray_gives_the_same_phi_though_a_worker_is_killed(self, tmp_path):
        here, ray = tmp_path / "here", tmp_path / "ray"
        process = run_script(here, 40)
        assert process.wait() == 0, process.stderr.read()
        process = run_script(ray, 40, workers=1)
        wait_for(".store/references/*/0000.checkpoint", ray, process)
        os.kill(worker_below(process.pid), signal.SIGKILL)
        assert process.wait() == 0, process.stderr.read()
        np.testing.assert_array_equal(matrix_of(ray), matrix_of(here))
