"""One generic registry: frozen specs by name, close names offered for a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from headstart.errors import UnknownNameError


class Named(Protocol):
    """Whatever can be registered: it knows its own name."""

    @property
    def name(self) -> str:
        """The name users type."""


Spec = TypeVar("Spec", bound=Named)


class Registry(Generic[Spec]):
    """Specs by name, in the order of registration; names are matched without regard to case."""

    def __init__(self, kind: str) -> None:
        """Start empty; `kind` names the entries in messages ('backbone', 'head')."""
        self.kind = kind
        self._specs: dict[str, Spec] = {}

    def register(self, spec: Spec) -> Spec:
        """Add one spec and return it.

        Raises:
            ValueError: a spec of that name is there already.
        """
        key = spec.name.casefold()
        if key in self._specs:
            raise ValueError(f"A {self.kind} named '{spec.name}' is registered already.")
        self._specs[key] = spec
        return spec

    def get(self, name: str, *, also: Callable[[], list[str]] = list) -> Spec:
        """The spec of that name.

        Args:
            name: what the user typed.
            also: further names to search for close ones, called only when `name` is unknown.

        Raises:
            UnknownNameError: no such name; the message offers the close ones.
        """
        spec = self._specs.get(name.casefold())
        if spec is None:
            raise UnknownNameError(self.unknown(name, also()))
        return spec

    def unknown(self, name: str, also: list[str]) -> str:
        """The sentence for a name that is not here."""
        known = {spec_name.casefold(): spec_name for spec_name in [*self.names(), *also]}
        close = difflib.get_close_matches(name.casefold(), known, n=4, cutoff=0.5)
        listed = [known[key] for key in close] or self.names()[:8]
        quoted = ", ".join(f"'{entry}'" for entry in listed)
        hint = f"Did you mean {quoted}?" if close else f"Known are {quoted}."
        return f"Unknown {self.kind} '{name}'. {hint}"

    def names(self) -> list[str]:
        """All names in the order of registration."""
        return [spec.name for spec in self._specs.values()]

    def __contains__(self, name: str) -> bool:
        """Whether a spec of that name is here."""
        return name.casefold() in self._specs

    def __iter__(self) -> Iterator[Spec]:
        """The specs in the order of registration."""
        return iter(self._specs.values())

    def __len__(self) -> int:
        """How many specs there are."""
        return len(self._specs)
