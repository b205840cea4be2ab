"""The Python side of the command line: its words as functions."""

from headstart.api.jobs import compare, compare_and_report, compare_quick, run, run_and_report
from headstart.api.models import evaluate, evaluate_pair, export, load
from headstart.api.naming import check_names, folder_or_name
from headstart.api.networks import examine, list_backbones, suggest_rate, summarise
from headstart.api.papers import claim_template, report, report_or_tell
from headstart.api.pictures import audit, convert, pairs_figure, preview
from headstart.api.recipes import list_recipes, run_recipe

__all__ = [
    "audit",
    "check_names",
    "claim_template",
    "compare",
    "compare_and_report",
    "compare_quick",
    "convert",
    "evaluate",
    "evaluate_pair",
    "examine",
    "export",
    "folder_or_name",
    "list_backbones",
    "list_recipes",
    "load",
    "pairs_figure",
    "preview",
    "report",
    "report_or_tell",
    "run",
    "run_and_report",
    "run_recipe",
    "suggest_rate",
    "summarise",
]
