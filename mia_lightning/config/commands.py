"""The commands: options of the short help, flags and examples."""

from mia_lightning.canary.config import AuditConfig, MakeConfig
from mia_lightning.config.benchmark import BenchmarkConfig
from mia_lightning.config.help import Command
from mia_lightning.config.schema import RunConfig
from mia_lightning.config.search import TuneConfig
from mia_lightning.evaluation.config import ComparisonConfig, PlannerConfig, ScoreEvaluationConfig

_HELP = {"help_all": "Show all options, and those of every class."}
_DEBUG = {"debug": "Show the traceback of an error."}
_CONFIGS = {
    "list_configs": "List the shipped configurations.",
    "print_config": "Print the complete configuration as YAML.",
}
_OVERWRITE = {"overwrite": "Replace an earlier result in the output folder."}

_COMMON = (
    "data.public",
    "data.private",
    "target.checkpoint",
    "target.architecture",
    "output",
    "extraction.queries",
    "references.count",
    "attacks",
    "submission.attack",
    "seed",
)


_COMMANDS = (
    Command(
        words="train",
        summary="Membership inference attacks on an image classifier, with calibrated error rates.",
        cls=RunConfig,
        common=_COMMON,
        flags={**_HELP, **_CONFIGS, **_OVERWRITE, **_DEBUG},
        examples=(
            "  {name} --config demo\n"
            "  {name} --config no_reference --data.public pub.pt \\\n"
            "    --data.private priv_out.pt --target.checkpoint 01_MIA.pt --output runs/a\n"
            "  {name} --config demo --attacks.mlp.learning_rate 0.01\n"
            "  {name} --attacks.help MLP\n"
        ),
    ),
    Command(
        words="tune",
        summary="Hyper-parameter search for attacks and for reference training.",
        cls=TuneConfig,
        common=(
            *("data.public", "data.private", "target.checkpoint", "output", "evaluation.holdout"),
            *("search.goal", "search.trials", "search.metric", "search.algorithm", "search.engine", "search.space"),
        ),
        flags={**_HELP, **_CONFIGS, "resume": "Continue an interrupted search.", **_DEBUG},
        index="search.",
        examples=(
            "  {name} --config tune --data.public pub.pt \\\n"
            "    --target.checkpoint 01_MIA.pt --output runs/sweep\n"
            "  {train} --config runs/sweep/best.yaml\n"
        ),
    ),
    Command(
        words="evaluate",
        summary="Evaluation of membership scores: ROC metrics with confidence intervals, tests, privacy bounds.",
        cls=ScoreEvaluationConfig,
        common=(
            *("key", "output", "policy", "attacks", "primary_attack", "covariates", "split", "fprs"),
            *("unlabeled", "leaderboard", "fpr", "resamples", "delta", "confidence", "seed"),
        ),
        flags={**_HELP, **_OVERWRITE, **_DEBUG},
        examples=(
            "  {name} scores.csv --output evaluation\n"
            "  {name} scores.parquet \\\n    --key key.csv --output evaluation\n"
            "  {name} --leaderboard key.csv \\\n    submissions/*.csv\n"
        ),
        positional="SCORES ...: Files of scores, CSV or Parquet.",
    ),
    Command(
        words="compare",
        summary="Comparison of two targets on the same records: paired differences of every figure and record.",
        cls=ComparisonConfig,
        common=("output", "attacks", "fprs", "resamples", "seed"),
        flags={**_HELP, **_DEBUG},
        examples="  {name} runs/a runs/b --output runs/a-b\n",
        positional="RUNS ...: Two output folders of train.py, or two files of scores: before and after.",
    ),
    Command(
        words="canaries make",
        summary="Canaries: records that are put into training by fair coins, with a commitment to the coins.",
        cls=MakeConfig,
        common=("output", "count", "pattern", "reader", "seed"),
        flags={**_HELP, **_DEBUG},
        examples="  {name} records.npz --count 1000 \\\n    --output canaries\n",
        positional="RECORDS: Records whose images, shape and classes the canaries take.",
    ),
    Command(
        words="canaries audit",
        summary="One-run lower bounds on epsilon of a target that was trained on canaries.",
        cls=AuditConfig,
        common=("scores", "trained", "commitment", "output", "bound", "delta", "confidence", "seed"),
        flags={**_HELP, **_DEBUG},
        examples="  {name} canaries --scores scores.csv \\\n    --trained trained.npz\n",
        positional="FOLDER: Folder of the canaries, or their manifest.json.",
    ),
    Command(
        words="benchmark",
        summary="Comparison of attacks over many targets: LiRA, RMIA, BASE, BaVarIA, Attack P and R, learned heads.",
        cls=BenchmarkConfig,
        common=(
            *("data", "pool", "targets", "references", "records", "architecture", "training.epochs", "queries"),
            *("workers", "heads", "output", "seed"),
        ),
        flags={**_HELP, **_DEBUG},
        examples=(
            "  {name} --data torchvision:CIFAR10 \\\n    --targets 10 --references 1,2,4,8,16,64\n"
            "  {name} --pool shadow_models \\\n    --targets all --heads false\n"
        ),
    ),
    Command(
        words="planner",
        summary="Plan of reference models: TPR at up to 64 of them, with intervals and hours, and when to stop.",
        cls=PlannerConfig,
        common=("output",),
        flags={**_HELP, **_DEBUG},
        examples="  {name} runs/references\n",
        positional="RUN: Output folder of a run of train.py with 4 or more references.",
    ),
)


def command_of(cls: type) -> Command:
    """Return the command whose options are the fields of a dataclass."""
    return next(command for command in _COMMANDS if command.cls is cls)
