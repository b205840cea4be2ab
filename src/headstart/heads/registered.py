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
        has_penalty: strength of a penalty is chosen on inner rows.
        has_epochs: trained in epochs, their number chosen on inner rows; has a history.
    """

    name: str
    description: str
    has_penalty: bool
    has_epochs: bool


HEADS: Registry[HeadSpec] = Registry("head")

HEADS.register(
    HeadSpec(
        name="logistic",
        description="multinomial logistic regression, L2 penalty chosen on an inner split",
        has_penalty=True,
        has_epochs=False,
    )
)

HEADS.register(
    HeadSpec(
        name="mlp",
        description="layers of 512 and 64 units with dropout, epochs chosen on an inner split",
        has_penalty=False,
        has_epochs=True,
    )
)
