"""The main job end to end, from the assignment's files to the run folder."""

import csv
import json
from importlib.resources import files
from io import BytesIO
from unittest.mock import Mock

import jsonschema
import numpy as np
import pytest
from helpers.extraction import COUNT, extract
from helpers.short_runs import full_length
from PIL import Image
from sklearn.metrics import roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mia_lightning import audit, load_config
from mia_lightning.cli import train
from mia_lightning.outputs import shards
from mia_lightning.pipeline.run_folder import FILES, RunFolder
from mia_lightning.pipeline.tensorboard import TensorBoard
from mia_lightning.references.store import ReferenceRecord


@pytest.fixture(scope="module")
def run(task, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "x"
    with full_length():
        assert train([*task.arguments, "--output", str(output)]) == 0
    return output


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_submission_has_the_private_order(run, task):
    rows = read_csv(run / "submission.csv")
    with (run / "submission.csv").open() as file:
        assert file.readline() == "ids,score\n"
    assert [int(row["ids"]) for row in rows] == task.ids[len(task.ids) // 2 :].tolist()
    assert np.isfinite([float(row["score"]) for row in rows]).all()


def test_scores_and_figures_agree(run, task):
    rows = [row for row in read_csv(run / "scores.csv") if row["split"] == "public"]
    member = np.array([int(row["membership"]) for row in rows])
    assert (member == task.membership[: len(member)]).all()
    figures = json.loads((run / "metrics.json").read_text())
    for name in ("loss_threshold", "mlp", "fusion"):
        scores = np.array([float(row[name]) for row in rows])
        assert figures["attacks"][name]["auc"] == pytest.approx(roc_auc_score(member, scores), abs=1e-12)
    assert [row["score"] for row in rows] == [row["fusion"] for row in rows]
    assert {int(row["fold"]) for row in rows} == set(range(5))
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)


def test_a_run_is_assessed_like_a_file_of_scores(run):
    """The folder's evaluation and `mia_lightning.evaluate` on its scores agree, and the guards that need images ran."""
    from mia_lightning.evaluation.config import ScoreEvaluationConfig
    from mia_lightning.pipeline.evaluate_scores import evaluate_file

    figures = json.loads((run / "metrics.json").read_text())
    assessment, _ = evaluate_file(ScoreEvaluationConfig(scores=(str(run / "scores.csv"),)))
    for name, evaluation in assessment.attacks.items():
        assert figures["attacks"][name]["auc"] == pytest.approx(evaluation.auc, abs=1e-12)
    status = {check["name"]: check["status"] for check in figures["sanity_checks"]}
    assert status["blind baseline"] != "skipped"
    assert status["pixel distribution check"] == "pass"
    assert status["generalization gap"] == "pass"
    assert status["permutation test (refitted)"] == "pass"
    assert len((run / "records.csv").read_text().splitlines()) > 1


def test_figures_keep_to_their_schema(run):
    schema = json.loads(files("mia_lightning.report").joinpath("metrics.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((run / "metrics.json").read_text()), schema, jsonschema.Draft202012Validator)


def test_what_is_sent_names_no_folder_of_this_machine(run, task):
    sent = [run / name for name in ("report.html", "audit_card.md", "metrics.json", "records.csv", "scores.csv")]
    for path in [*sent, *(path for path in (run / "tensorboard").rglob("*") if path.is_file())]:
        for folder in (task.folder, run.parent):
            assert str(folder).encode() not in path.read_bytes(), path.name
    page = (run / "report.html").read_text()
    for part in ("01_MIA.pt", "pub.pt", "resnet18", "refitted", "data:image/png;base64", "Configuration"):
        assert part in page


def test_unknown_private_membership_is_not_evaluated(run):
    figures = json.loads((run / "metrics.json").read_text())
    assert figures["run"]["private"] == {}
    assert all(row["membership"] == "" for row in read_csv(run / "scores.csv") if row["split"] == "private")


def test_an_over_fitted_target_is_found_out(run):
    figures = json.loads((run / "metrics.json").read_text())
    assert figures["run"]["target"]["accuracy_on_members"] > figures["run"]["target"]["accuracy_on_non_members"] + 0.3
    assert figures["attacks"]["loss_threshold"]["auc_low"] > 0.5


def test_tensorboard_epochs_figures_hparams(run):
    for fold in range(5):  # a run each, so that a chart shows all folds
        events = EventAccumulator(str(run / "tensorboard" / f"fold {fold}")).Reload()
        assert {f"mlp/{value}" for value in ("loss", "tpr@0.05", "tpr@0.01")} <= set(events.Tags()["scalars"])
        assert len(events.Scalars("mlp/loss")) == 2
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) <= {"extraction/records per second"}  # after seconds
    assert min(tags["images"]) == "report/00 ROC, out-of-fold"
    titles = {tag.split(" ", 1)[1] for tag in tags["images"]}
    assert {"scores, loss_threshold", "scores, fusion", "classes", "agreement", "columns"} <= titles
    for tag in tags["images"]:
        (image,) = events.Images(tag)
        assert len(np.unique(Image.open(BytesIO(image.encoded_image_string)))) > 10, tag  # not blank
    assert {"scores/fusion, members", "scores/fusion, non-members"} <= set(tags["histograms"])
    assert {"audit card/text_summary", "precision and recall/fusion"} <= set(tags["tensors"])
    figures = json.loads((run / "metrics.json").read_text())
    final = EventAccumulator(str(run / "tensorboard" / "hparams")).Reload()
    assert final.Scalars("final/auc")[0].value == pytest.approx(figures["attacks"]["fusion"]["auc"])


def test_extraction_rate_is_no_part_of_the_key(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "RATE_SECONDS", 0.0)
    extract(tmp_path / "store")
    stored = set((tmp_path / "store").rglob("*"))
    board = TensorBoard(tmp_path / "board", logger := Mock())
    extract(tmp_path / "store", on_rate=board.extraction)
    assert not logger.log_metrics.called  # the outputs are reused
    extract(tmp_path / "other", on_rate=board.extraction)
    assert set((tmp_path / "store").rglob("*")) == stored
    assert {path.name for path in (tmp_path / "other").rglob("*")} == {path.name for path in stored}
    points = EventAccumulator(str(tmp_path / "board")).Reload().Scalars("extraction/records per second")  # still open
    assert points[-1].step == COUNT
    assert all(point.value > 0 for point in points)
    assert logger.log_metrics.call_args.kwargs["step"] == COUNT
    board.writer.close()


def test_tensorboard_draws_ratios_of_any_size(tmp_path):
    board = TensorBoard(tmp_path)
    for name, scores in (("ratio", np.geomspace(1e50, 1e300, 9)), ("infinite", np.array([-np.inf, 0.0, np.inf]))):
        board.add_histogram(name, scores)
    board.writer.close()
    assert set(EventAccumulator(str(tmp_path)).Reload().Tags()["histograms"]) == {"ratio", "infinite"}


def test_tensorboard_references(tmp_path):
    board = TensorBoard(tmp_path)
    for number in range(2):
        board.reference(ReferenceRecord(number, "trained", 0.9, 0.5, losses=(2.0, 1.0)))
    board.reference(ReferenceRecord(2, "diverged", losses=()))
    board.writer.close()
    events = EventAccumulator(str(tmp_path / "reference 01")).Reload()
    assert [(point.step, point.value) for point in events.Scalars("references/loss")] == [(1, 2.0), (2, 1.0)]
    assert events.Scalars("references/accuracy on others")[0].value == 0.5
    assert EventAccumulator(str(tmp_path / "reference 02")).Reload().Tags()["scalars"] == []


def test_saved_configuration_reruns_to_the_same_bytes(run, tmp_path):
    output = tmp_path / "again"
    assert train(["--config", str(run / "config.yaml"), "--output", str(output)]) == 0
    assert (output / "submission.csv").read_bytes() == (run / "submission.csv").read_bytes()


def test_second_run_reuses_outputs_for_another_submission(run, task, capfd, caplog, tmp_path):
    caplog.set_level("INFO", logger="mia_lightning")
    options = ["--submission.columns", "[id,p]", "--submission.value", "probability", "--submission.attack", "mlp"]
    options += ["--cache_dir", str(run.parent / ".store")]
    assert train([*task.arguments, *options, "--output", str(tmp_path / "y")]) == 0
    assert caplog.text.count("reused") == 2
    rows = read_csv(tmp_path / "y" / "submission.csv")
    assert set(rows[0]) == {"id", "p"}
    assert all(0 <= float(row["p"]) <= 1 for row in rows)


def test_same_command_on_the_same_folder_completes_it(run, task):
    before = (run / "submission.csv").read_bytes()
    (run / "submission.csv").unlink()  # as if the earlier try had been killed before it was written
    assert train([*task.arguments, "--output", str(run)]) == 0
    assert (run / "submission.csv").read_bytes() == before


def test_no_partial_files_are_left(run):
    assert {path.name for path in run.iterdir()} == {
        "audit_card.md",
        "records.csv",
        "config.yaml",
        "metrics.json",
        "private_records.csv",
        "report.html",
        "roc.svg",
        "scores.csv",
        "submission.csv",
        "tensorboard",
    }


def test_overwrite_replaces_every_file(run):
    assert {path.name for path in run.iterdir()} <= set(FILES)


def test_private_membership_is_evaluation_only(task, tmp_path):
    """With and without known private membership, the scores are the same; with it, the private table appears."""
    from mia_lightning.records.readers import read_records

    private = read_records(str(task.folder / "priv_out.pt"))
    truth = task.membership[len(private) :]
    for name, membership in (("with", truth), ("flipped", 1 - truth)):
        arrays = {"images": private.images, "ids": private.ids, "labels": private.labels, "membership": membership}
        np.savez(tmp_path / f"{name}.npz", **arrays)
    results = []
    for name in (task.folder / "priv_out.pt", tmp_path / "with.npz", tmp_path / "flipped.npz"):
        config = load_config(
            task.folder / "quick.yaml",
            output=str(tmp_path / "x"),
            data={"public": str(task.folder / "pub.pt"), "private": str(name)},
            target={"checkpoint": str(task.folder / "01_MIA.pt")},
        )
        results.append(audit(config).attacks["fusion"])
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].private_scores, other.private_scores)
        np.testing.assert_array_equal(results[0].public_scores, other.public_scores)
    assert results[0].private is None
    assert results[1].private.auc == pytest.approx(roc_auc_score(truth, results[1].private_scores))
    assert results[2].private.auc == pytest.approx(1 - results[1].private.auc)


def test_audit_without_private_records_by_a_policy(task, tmp_path):
    arguments = [a for a in task.arguments if "priv" not in a and a != "--data.private"]
    (tmp_path / "policy.yaml").write_text("criteria: [{figure: generalization_gap, max: 0.001}]")
    policy = ("--policy", str(tmp_path / "policy.yaml"))
    assert train([*arguments, *policy, "--output", str(tmp_path / "z")]) == 3
    decision = json.loads((tmp_path / "z" / "decision.json").read_text())
    assert set(decision["digests"]) == {"policy", "scores", "target", "public_records"}
    jsonschema.validate(
        json.loads((tmp_path / "z" / "metrics.json").read_text()),
        json.loads(files("mia_lightning").joinpath("report/metrics.schema.json").read_text()),
    )
    assert not (tmp_path / "z" / "submission.csv").exists()
    assert (tmp_path / "z" / "scores.csv").exists()


def test_a_killed_write_leaves_no_file_under_its_name(tmp_path):
    folder = RunFolder(load_config(output=str(tmp_path / "k")))
    folder.acquire()

    def write_and_fail():
        with folder.atomic_write("submission.csv") as file:
            file.write("ids,score\n1,")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_and_fail()
    folder.release()
    assert [path.name for path in folder.path.iterdir()] == ["config.yaml"]
