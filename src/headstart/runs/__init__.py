"""The main job: plan, features, folds, final fit, lock, test, record.

The job itself loads when it is first asked for: whoever predicts needs the settings at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headstart.runs.settings.run import RunSettings, settings_from

if TYPE_CHECKING:
    from headstart.runs.job import RunResult, run_job
    from headstart.runs.plan import RunPlan, plan_job

__all__ = ["RunPlan", "RunResult", "RunSettings", "plan_job", "run_job", "settings_from"]


def __getattr__(name: str) -> Any:
    """The job and its plan, loaded now (PEP 562)."""
    if name in ("RunResult", "run_job"):
        from headstart.runs import job

        return getattr(job, name)
    if name in ("RunPlan", "plan_job"):
        from headstart.runs import plan

        return getattr(plan, name)
    raise AttributeError(f"module 'headstart.runs' has no attribute '{name}'")
