"""One training of a search, and the file that remembers them all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from ..stages.artifact import Artifact
from ..stages.crew import Crew
from ..targets.errors import EdgepressError
from .plan import Plan, PlannedStage
from .run import Reporter, Runner, make_writable
from .search import FOLDER
from .space import Axis, current
from .start import Start, open_start
from .store import STORE, Store, key_of

STARTUP_TRIALS = 5  # before any trial is compared with others and given up
UNCHECKED_SHARE = 0.25  # of the epochs: early ones say little


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Everything that trials share. artifact: what the stage starts from; storage: where they are remembered."""

    stage: PlannedStage
    start: Start
    runner: Runner
    artifact: Artifact
    folder: Path
    storage: Any
    reporter: Reporter

    @classmethod
    def open(cls, plan: Plan, stage: PlannedStage, *, out: Path, reporter: Reporter) -> Trials:
        """Open the data, and carry out the stages that come before, or find what an earlier run made of them."""
        make_writable(out)
        folder = out / FOLDER
        folder.mkdir(exist_ok=True)
        torch.manual_seed(plan.recipe.seed)
        start = open_start(plan, cache=out / "cache", progress=reporter.stage("data"))
        store = Store(out / STORE, note=reporter.note)
        runner = Runner(
            start=start, store=store, reporter=reporter, crew=Crew(device=torch.device("cpu")), mlflow=False
        )
        artifact = start.original
        for entry in plan.stages:
            if entry.name == stage.name:
                break
            artifact = runner.carry_out(entry, artifact)
        storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / 'trials.db').resolve()}")
        return cls(
            stage=stage,
            start=start,
            runner=runner,
            artifact=artifact,
            folder=folder,
            storage=storage,
            reporter=reporter,
        )

    @property
    def images(self) -> int:
        """How many the trials are judged by."""
        return len(self.start.data.val)

    def study(self, name: str, axes: Sequence[Axis], fixed: Mapping[str, str]) -> Any:
        """The trials of one kind, old ones of the same search included. The recipe's own settings are tried first."""
        key = key_of(
            {
                "stage": self.start.key(self.stage, self.artifact),
                "axes": [vars(axis) for axis in axes],
                "fixed": dict(fixed),
            }
        )
        seed = self.start.plan.recipe.seed
        study = optuna.create_study(
            study_name=f"{self.stage.name}-{name}-{key}",
            storage=self.storage,
            load_if_exists=True,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=STARTUP_TRIALS,
                n_warmup_steps=round(UNCHECKED_SHARE * self.stage.settings["epochs"]),
            ),
        )
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # what was killed will not come back
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=STARTUP_TRIALS)
        own = {axis.key: current(self.stage, axis.key) for axis in axes}
        if not study.trials and all(axis.holds(own[axis.key]) for axis in axes):
            study.enqueue_trial(own)
        return study

    @staticmethod
    def ended(study: Any) -> int:
        """Trials that came to an end, good or bad."""
        states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        return len(study.get_trials(deepcopy=False, states=states))

    def run(self, study: Any, plan_for: Callable[[Any], Plan], *, title: str) -> None:
        """One trial more."""
        trial = study.ask()
        work = self.folder / f"trial-{study._study_id}-{trial.number}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            plan = plan_for(trial)
            (entry,) = [entry for entry in plan.stages if entry.name == self.stage.name]
            context = self.runner.context(
                entry, work=work, progress=self.reporter.stage(title), tracker=_Judge(trial, self.reporter, title)
            )
            record = entry.stage.run(self.artifact, context).records[-1]
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            self.reporter.done(title, f"given up after {len(study.trials[trial.number].intermediate_values)} epochs")
        except EdgepressError as error:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            self.reporter.note(f"{title} failed: {error}")
        else:
            value = max(record.curves["validation"])
            study.tell(trial, value)
            self.reporter.done(title, f"validation {value:.2f}")
        finally:
            shutil.rmtree(work, ignore_errors=True)


class _Judge:
    """Stops a training that is worse than most were at the same epoch."""

    def __init__(self, trial: Any, reporter: Reporter, title: str) -> None:
        self.trial, self.reporter, self.title = trial, reporter, title

    def note(self, epoch: int, figures: Mapping[str, float]) -> None:
        self.trial.report(figures["validation"], epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned

    def close(self) -> None: ...
