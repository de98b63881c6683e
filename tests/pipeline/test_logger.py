import pytest

from mia_lightning.config.schema import LoggerConfig
from mia_lightning.errors import MIAError
from mia_lightning.pipeline.tensorboard import build_logger


def test_csv_logger(tmp_path):
    config = LoggerConfig("lightning.pytorch.loggers.CSVLogger", {"save_dir": str(tmp_path)})
    logger = build_logger(config)
    logger.log_metrics({"final/auc": 0.75}, step=0)
    logger.finalize("success")
    (file,) = tmp_path.rglob("metrics.csv")
    assert file.read_text().splitlines() == ["final/auc,step", "0.75,0"]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (LoggerConfig("os.system"), "belongs to Python itself; refused without importing it"),
        (LoggerConfig("torch.nn.Linear"), "not a subclass of Logger"),
        (LoggerConfig("lightning.pytorch.loggers.CSVLogger"), "see --logger.init_args"),
        (LoggerConfig(None, {"save_dir": "x"}), "without --logger.class_path"),
    ],
)
def test_unusable_loggers_are_one_sentence(config, sentence):
    with pytest.raises(MIAError, match=sentence):
        build_logger(config)
    assert build_logger(LoggerConfig()) is None
