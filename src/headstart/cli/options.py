"""The settings of a run as options, one table for every command that makes runs.

A command's signature is what typer reads; here it is made from the table, so that `run` and the
commands that start many runs offer the same words with the same help.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

import typer

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time
Whole = Optional[int]  # noqa: UP045
Number = Optional[float]  # noqa: UP045
Switch = Optional[bool]  # noqa: UP045


@dataclass(frozen=True)
class SettingOption:
    """One setting as an option; its name with dashes is the flag.

    Attributes:
        name: field of `headstart.runs.RunSettings`.
        kind: `Text`, `Whole`, `Number` or `Switch`.
        help: a few words, the default in brackets.
        flag: where it is not `--name`.
    """

    name: str
    kind: Any
    help: str
    flag: str = ""


DATA = (
    SettingOption("data", Text, "Folder of class folders (or train/ and test/), a CSV or Parquet "
                  "manifest, or a built-in name: digits."),
    SettingOption("test_data", Text, "Folder of test images, opened once at the end."),
    SettingOption("columns", Text, "Unusual columns of a manifest, as in label=finding,path=file."),
    SettingOption("group_by", Text, "Column, or regular expression on the path: images of equal "
                  "value stay on one side of every split."),
    SettingOption("crop_margin", Number, "Added around boxes, as a share of them.  [default: 0]"),
    SettingOption("max_images", Whole, "Take a sample of about so many images.  [default: all]"),
    SettingOption("test_fraction", Number, "Share held out to test on, where the data bring no "
                  "test part.  [default: 0.2]"),
    SettingOption("ratio", Text, "Shares of train/test or train/val/test, as in 80/20 or 70/15/15; "
                  "the val share chooses settings inside every fold."),
    SettingOption("splits", Text, "Parts and folds to take: the splits.csv of a run, its folder, "
                  "or a CSV with path,part[,fold]."),
    SettingOption("folds", Text, "Cross-validation folds: a number, leave-one-group-out or "
                  "leave-one-source-out.  [default: 5]"),
    SettingOption("inner_folds", Whole, "Inside every fold, the parts that choose the penalty of a "
                  "logistic head in turn; 1 holds a fifth out.  [default: 1]"),
    SettingOption("num_penalties", Whole, "Penalties to choose from.  [default: 10]"),
)  # fmt: skip
MODEL = (
    SettingOption("model", Text, "Backbone; see `headstart models`.  [default: mini]"),
    SettingOption("weights", Text, "bundled, hub, none (random) or a file.  [default: auto]"),
    SettingOption("image_size", Whole, "Input size in px.  [default: the network's own]"),
    SettingOption("strategy", Text, "probe (frozen), partial, full, two-stage, gradual, norm-only "
                  "or scratch.  [default: probe]"),
    SettingOption("head", Text, "Head on frozen features: logistic or mlp.  [default: logistic]"),
    SettingOption("tune", Whole, "Settings of an mlp head to try; every fold keeps its best on its "
                  "inner part, by successive halving, as in 27."),
    SettingOption("hidden", Text, "Hidden layers of an mlp head or of a new head to fine-tune "
                  "with, as in 512,64."),
    SettingOption("dropout", Text, "Before every dense layer, as in 0.5."),
    SettingOption("lr", Number, "Learning rate of what is trained by steps."),
    SettingOption("epochs", Text, "Passes over the training images; 8,6 for two phases."),
    SettingOption("batch_size", Whole, "Images a step."),
    SettingOption("head_blocks", Text, "Layers before a head to fine-tune with: se, eca, channel, "
                  "spatial, cbam, as in se:8,spatial."),
    SettingOption("pool", Text, "mean, max or flatten of the last map.  [default: own]"),
    SettingOption("trainable", Text, "What fine-tuning changes: all, none, stages:2, layers:4, "
                  "after:10."),
    SettingOption("augment", Text, "Augmentation: a policy, or a list as in flip:0.5,rotate:12."),
    SettingOption("optimizer", Text, "sgd, adam, adamw, rmsprop or adagrad.  [default: adamw]"),
    SettingOption("schedule", Text, "Of the learning rate: cosine, constant, one-cycle, step, "
                  "plateau.  [default: cosine]"),
    SettingOption("patience", Whole, "Epochs without improvement before a phase ends."),
    SettingOption("monitor", Text, "Inner metric that chooses the epoch.  [default: loss]"),
    SettingOption("compile", Switch, "Compile the part of the network that learns; worth it for "
                  "many epochs.  [default: no]"),
    SettingOption("train", Text, "More of fine-tuning, as in momentum=0.8,clip_norm=1."),
    SettingOption("views", Text, "Views of each training image that a head is fitted on beside the "
                  "whole: flip, crops:4 or flip,crops:4."),
    SettingOption("tta", Text, "flip: average every answer over the picture and its mirror image."),
    SettingOption("layers", Text, "Stages whose features a head on a frozen network takes: 2 (from "
                  "the last), names as in stage3,head, or auto, chosen in every fold.  [default: "
                  "the network's own features]"),
    SettingOption("class_weights", Text, "none or balanced.  [default: none]"),
)  # fmt: skip
TRUST = (
    SettingOption("positive", Text, "The class that a yes or no is about, against all others."),
    SettingOption("threshold", Text, "Where to say yes, chosen out of fold: youden, "
                  "sensitivity:0.95, specificity:0.9, cost:5 (a miss costs five false alarms), or "
                  "a probability.  [default: 0.5]"),
    SettingOption("prevalence", Text, "Of the positive class where the model is to be used, as in "
                  "0.05 or 0.01,0.05: PPV and NPV there."),
    SettingOption("calibration_split", Number, "Share of the training part kept aside for the "
                  "thresholds of sets, groups whole: their guarantee holds then."),
    SettingOption("sets", Text, "Prediction sets hold the truth as often as promised over all "
                  "(marginal) or for every class (by-class).  [default: marginal]"),
    SettingOption("alpha", Number, "Share of sets that may miss the truth.  [default: 0.1]"),
    SettingOption("subgroups", Text, "Columns by whose values the test part is judged too, as in "
                  "sex,age."),
    SettingOption("ood_data", Text, "Pictures of other things: are they told to be unknown?"),
)  # fmt: skip
WORKING = (
    SettingOption("seed", Whole, "Every random choice hangs on it.  [default: 0]"),
    SettingOption("device", Text, "auto, cpu, cuda or mps.  [default: auto]"),
    SettingOption("precision", Text, "auto, bfloat16 or float32.  [default: auto]"),
    SettingOption("pass_engine", Text, "What computes the features: auto, eager (PyTorch) or "
                  "openvino.  [default: auto]"),
    SettingOption("audit", Text, "Look for duplicates, leaks and shortcuts: auto (up to 20,000 "
                  "images), full or none.  [default: auto]"),
    SettingOption("allow_leaks", Switch, "Go on although the data's own split leaks; stamped on "
                  "everything.  [default: no]"),
    SettingOption("learning_curve", Switch, "Score parts of the training images too: how many are "
                  "needed?  [default: yes]"),
    SettingOption("profile", Switch, "Write down where the seconds went: profile.csv.  "
                  "[default: no]"),
    SettingOption("strict", Switch, "Stop if any image cannot be read.  [default: no]"),
)  # fmt: skip
RUN_OPTIONS = (*DATA, *MODEL, *TRUST, *WORKING)


def with_settings(
    options: tuple[SettingOption, ...],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put options before a command's own; it gets those that were given as a dictionary `given`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        names = [option.name for option in options]

        def accepting(**values: Any) -> None:
            given = {n: values.pop(n) for n in names if values.get(n) is not None}
            command(given, **{n: v for n, v in values.items() if n not in names})

        parameters = [parameter_of(option) for option in options]
        parameters += [p for name, p in own.parameters.items() if name != "given"]
        accepting.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        accepting.__doc__ = command.__doc__
        accepting.__name__ = command.__name__
        return accepting

    return decorate


def parameter_of(option: SettingOption) -> inspect.Parameter:
    """One option as typer wants it."""
    flag = option.flag or f"--{option.name.replace('_', '-')}"
    if option.kind is Switch:
        flag = f"{flag}/--no-{flag[2:]}"
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=typer.Option(None, flag, help=option.help),
        annotation=option.kind,
    )
