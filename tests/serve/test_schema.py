"""The description in `/openapi.json` is kept: schemathesis asks whatever it allows, and more.

Hypothesis drives it directly, because schemathesis' own plugin does not know pytest 9.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from live import running, settings_for

schemathesis = pytest.importorskip("schemathesis")

EXAMPLES = 6
TOKEN = "a-token-of-some-length"
# 'positive_data_acceptance' takes any bytes for a good image; the service does not.
LEFT_OUT = ("positive_data_acceptance",)


def ask_everything(schema, token: str, examples: int) -> int:
    """Call every operation with data as described and otherwise; how many calls were made."""
    calls = 0
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in LEFT_OUT]

    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in schemathesis.GenerationMode:

            @settings(
                max_examples=examples,
                deadline=None,
                derandomize=True,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
                database=None,
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def call(case):
                nonlocal calls
                calls += 1
                case.call_and_validate(
                    headers={"Authorization": f"Bearer {token}"}, excluded_checks=checks
                )

            with contextlib.suppress(Unsatisfiable):  # nothing can be wrong about a bare GET
                call()
    return calls


@pytest.mark.slow
def test_every_answer_is_as_described(served_bundle):
    with running(settings_for(served_bundle, token=TOKEN)) as live:
        schema = schemathesis.openapi.from_url(
            f"{live.url}/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        assert ask_everything(schema, TOKEN, EXAMPLES) >= 10
        assert live.service.waiting == 0
