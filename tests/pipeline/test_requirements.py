"""Configuration errors that are found before any work, with the option that resolves them."""

import os

import pytest

from mia_lightning import MIAError, load_config
from mia_lightning.config.shipped import names
from mia_lightning.pipeline.checks import check_names
from mia_lightning.pipeline.requirements import check_folders, check_requirements


def threshold(column):
    return {"class_path": "Threshold", "init_args": {"column": column}}


def check(*files, **overrides):
    check_requirements(load_config(*files, **overrides))


@pytest.mark.parametrize("name", [name for name in names() if not name.startswith("tune")])
def test_shipped_configurations_requirements(name):
    check(name)


@pytest.mark.parametrize(
    ("files", "overrides", "sentence"),
    [
        (("no_reference",), {"extraction": {"queries": 2}}, "'phi_contrast' is the same .* --extraction.queries 18"),
        (("no_reference",), {"extraction": {"queries": 1}}, "'phi_std' .* --extraction.queries 2"),
        ((), {"signals": {"names": ["phi", "phi_std"]}, "extraction": {"queries": 1}}, "--extraction.queries 2"),
        ((), {"extraction": {"queries": 1}, "attacks": {"a": threshold("phi_std")}}, "--extraction.queries 2"),
        (("references",), {"references": {"queries": 2}}, "calibration_contrast"),
        (("references",), {"references": {"count": 1}}, "score 'lira'"),
        ((), {"attacks": {"a": threshold("phii")}}, "did you mean 'phi'"),
        ((), {"attacks": {"score": threshold("phi")}}, "column of scores.csv"),
        ((), {"attacks": {"phi": threshold("loss")}}, "has the same name as a signal"),
        ((), {"attacks": {"a": threshold("b"), "b": threshold("phi")}}, "configure 'b' before it"),
        ((), {"signals": {"names": ["phi_gradient_norm"]}}, "--extraction.gradients true"),
        ((), {"references": {"scores": {"lira": {"class_path": "LiRA"}}}}, "--references.count"),
        (
            (),
            {
                "references": {"count": 4, "scores": {"lira": {"class_path": "LiRA"}}},
                "attacks": {"a": threshold("lira_x")},
            },
            "'lira_x', neither a signal",
        ),
        (
            (),
            {"references": {"count": 4, "scores": {"a": {"class_path": "LiRA"}}}, "attacks": {"a": threshold("phi")}},
            "reference score",
        ),
    ],
)
def test_requirement_error_message(files, overrides, sentence):
    with pytest.raises(MIAError, match=sentence):
        check(*files, **overrides)


def test_constant_signal_of_a_preset_is_allowed():
    check(extraction={"queries": 1})


def test_folders(tmp_path):
    (tmp_path / "file").write_text("")
    check_folders([("output", tmp_path / "new" / "deep")])
    with pytest.raises(MIAError, match=r"--output .*file is not a folder"):
        check_folders([("output", tmp_path / "file" / "run")])
    with pytest.raises(MIAError, match="file is not a folder"):
        check_names(load_config(data={"public": "x.pt"}, output=str(tmp_path / "file")))
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(MIAError, match="cannot be written"):
            check_folders([("cache_dir", tmp_path / "locked" / "x")])
    assert sorted(path.name for path in tmp_path.iterdir()) in (["file"], ["file", "locked"])
