"""The heads that can be named: one frozen spec each, with what it can do."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.registry import Registry


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """What a head is called and what callers may expect of it.

    Attributes:
        name: what users type.
        description: one line for tables.
        batched_over_folds: many folds and settings are fitted in one call.
        has_penalty: strength of a penalty is chosen on inner rows.
        has_epochs: trained in epochs, their number chosen on inner rows; has a history.
        is_linear: logits are features @ coef.T + intercept, so class maps can be drawn.
    """

    name: str
    description: str
    batched_over_folds: bool
    has_penalty: bool
    has_epochs: bool
    is_linear: bool


HEADS: Registry[HeadSpec] = Registry("head")

HEADS.register(
    HeadSpec(
        name="logistic",
        description="multinomial logistic regression, L2 penalty chosen on an inner split",
        batched_over_folds=True,
        has_penalty=True,
        has_epochs=False,
        is_linear=True,
    )
)

HEADS.register(
    HeadSpec(
        name="mlp",
        description="layers of 512 and 64 units with dropout, epochs chosen on an inner split",
        batched_over_folds=True,
        has_penalty=False,
        has_epochs=True,
        is_linear=False,
    )
)
