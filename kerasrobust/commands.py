"""The registry of commands: where the settings and the work of each are. No TensorFlow here.

A new command is one file with a config class and a job (see `jobs.job`), and one line here. Everybody else learns of
it from this table: the command line and its help, the form, the engine, and `from_dict`.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import Any

from kerasrobust.errors import InputError, unknown_name
from kerasrobust.fields import fields
from kerasrobust.settings import CommandConfig, RunConfig


@dataclass(frozen=True)
class Command:
    """Where a command is found, imported when it is needed.

    Attributes:
        config: `module:Class` of its settings. The module must not import TensorFlow.
        job: `module:Class` of a `jobs.job.Job`, which the engine runs in a folder of its own.
        answer: instead of a job, `module:function` that prints something at once, without a run or TensorFlow, and
            returns the exit status.
        schema: what `--json` prints, by the name of a file in `schemas/`.
        in_form: whether the UI's form of a new run offers it.
    """

    config: str
    job: str = ""
    answer: str = ""
    schema: str = "event"
    in_form: bool = True


COMMANDS: dict[str, Command] = {
    "train": Command("kerasrobust.config:TrainConfig", "kerasrobust.jobs.train:TrainJob"),
    "attack": Command("kerasrobust.config:AttackConfig", "kerasrobust.jobs.attack:AttackJob"),
    "audit": Command("kerasrobust.config:AuditConfig", "kerasrobust.jobs.attack:AuditJob"),
    "assess": Command("kerasrobust.assessing:AssessConfig", "kerasrobust.jobs.assess:AssessJob"),
    "randomness": Command("kerasrobust.config:RandomnessConfig", "kerasrobust.jobs.randomness:RandomnessJob"),
    "certify": Command("kerasrobust.assessing:CertifyConfig", "kerasrobust.jobs.certify:CertifyJob"),
    "corruptions": Command("kerasrobust.assessing:CorruptionsConfig", "kerasrobust.jobs.corruptions:CorruptionsJob"),
    "study": Command("kerasrobust.config:StudyConfig", "kerasrobust.jobs.study:StudyJob"),
    "demo": Command("kerasrobust.config:DemoConfig", "kerasrobust.jobs.study:StudyJob"),
    "import": Command("kerasrobust.config:ImportConfig", "kerasrobust.jobs.import_model:ImportJob", in_form=False),
    "compare": Command(
        "kerasrobust.config:CompareConfig", answer="kerasrobust.show.compare:compare", schema="figures", in_form=False
    ),
    "models": Command(
        "kerasrobust.config:ModelsConfig", answer="kerasrobust.show.compare:models", schema="figures", in_form=False
    ),
    "export": Command(
        "kerasrobust.exporting:ExportConfig",
        answer="kerasrobust.show.export.command:export",
        schema="export",
        in_form=False,
    ),
}


def load(place: str) -> Any:
    """Returns what a `module:name` of the registry names."""
    return pkgutil.resolve_name(place)


def config_class(kind: str) -> type[CommandConfig]:
    """Returns the config class of a command.

    Raises:
        InputError: for an unknown command.
    """
    if kind not in COMMANDS:
        raise unknown_name("command", kind, COMMANDS)
    made: type[CommandConfig] = load(COMMANDS[kind].config)
    return made


def run_class(kind: str) -> type[RunConfig]:
    """Returns the config class of a command that makes runs.

    Raises:
        InputError: for an unknown command, or one that answers at once.
    """
    makers = {name: command for name, command in COMMANDS.items() if command.job}
    if kind not in makers:
        raise unknown_name("command", kind, makers)
    made: type[RunConfig] = load(makers[kind].config)
    return made


def summaries() -> dict[str, str]:
    """Returns the first line of what each command says of itself."""
    return {kind: (config_class(kind).__doc__ or "").splitlines()[0] for kind in COMMANDS}


def from_dict(record: dict[str, Any]) -> RunConfig:
    """Returns the config that `config.to_dict` wrote. Fields that this version doesn't know are skipped.

    Raises:
        InputError: for a kind that no command makes runs of, or invalid values.
    """
    kind = str(record.get("kind"))
    made = run_class(kind)
    values = {item.name: item.restore(record[item.name]) for item in fields(made) if item.name in record}
    try:
        return made(**values)
    # Of other types than the settings', or numbers of hundreds of digits.
    except (TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"Expected the settings of a {kind!r} run. Received: {error}. Check config.json.") from error
