"""An audit of JPEG files with the user's transform: streamed, with references and a report."""

import numpy as np
import pytest
from PIL import Image
from torch import nn
from torchvision import transforms

from mia_lightning.attacks import Threshold
from mia_lightning.config.schema import DataConfig, EvaluationConfig, RunConfig, TargetConfig
from mia_lightning.errors import MIAError
from mia_lightning.pipeline.audit import prepare
from mia_lightning.pipeline.run import run
from mia_lightning.references.config import ReferencesConfig, ReferenceTraining
from mia_lightning.references.scores.difficulty_calibration import DifficultyCalibration
from mia_lightning.runtime.hardware import Hardware

HERE = "tests.pipeline.test_image_files"
evaluation = transforms.Compose([transforms.Resize((8, 8)), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])


class Net(nn.Module):
    def __init__(self, num_classes=2):
        super().__init__()
        self.conv, self.layer = nn.Conv2d(3, 4, 3), nn.Linear(4, num_classes)

    def forward(self, images):
        return self.layer(self.conv(images).relu().mean(dim=(2, 3)))


def make_config(folder, **data):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("a", "b"):
            (folder / "photos" / split / label).mkdir(parents=True)
            for number in range(12):
                pixels = rng.integers(0, 256, (10 + number % 3, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "photos" / split / label / f"{number}.jpg")
    training = ReferenceTraining(epochs=1, batch_size=8)
    return RunConfig(
        output=str(folder / "run"),
        data=DataConfig(public=str(folder / "photos"), transform=f"{HERE}:evaluation", **data),
        target=TargetConfig(architecture=f"{HERE}:Net"),
        hardware=Hardware(accelerator="cpu", loader_workers=1),
        references=ReferencesConfig(count=2, training=training, scores={"gap": DifficultyCalibration()}),
        attacks={"gap_t": Threshold(column="gap"), "phi_t": Threshold(column="phi")},
        evaluation=EvaluationConfig(folds=2),
    )


def test_run_of_a_folder(tmp_path):
    result = run(make_config(tmp_path))
    assert result.reference_outputs.references.shape == (2, 48, 2)
    assert np.isfinite(result.attacks["gap_t"].public_scores).all()
    assert "width of the file" in (tmp_path / "run" / "audit_card.md").read_text()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"mean": (0.5,) * 3, "std": (0.5,) * 3}, "--data.mean and --data.std apply to stored images alone"),
        ({"gray_to_rgb": True}, "--data.gray_to_rgb true: image files are decoded to RGB already"),
    ],
)
def test_options_that_files_lack(data, sentence, tmp_path):
    with pytest.raises(MIAError, match=sentence):
        prepare(make_config(tmp_path, **data))
