"""The main job: plan, features, folds, final fit, lock, test, record."""

from headstart.runs.job import RunResult, run_job
from headstart.runs.plan import RunPlan, plan_job
from headstart.runs.settings.run import RunSettings, settings_from

__all__ = ["RunPlan", "RunResult", "RunSettings", "plan_job", "run_job", "settings_from"]
