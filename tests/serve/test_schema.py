"""The description in `/openapi.json` is kept: schemathesis asks whatever it allows, and more."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from live import running, settings_for

schemathesis = pytest.importorskip("schemathesis")

EXAMPLES = 8
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def described(served_bundle):
    """Its own service, with a token, so that refusals of it are asked for too."""
    with running(settings_for(served_bundle, token=TOKEN)) as live:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        yield schemathesis.openapi.from_url(f"{live.url}/openapi.json", headers=headers)


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_described(case):
    # Left out: 'positive_data_acceptance' takes any bytes for a good image, the service does not.
    case.call_and_validate(
        headers={"Authorization": f"Bearer {TOKEN}"},
        excluded_checks=[schemathesis.checks.CHECKS.get_one("positive_data_acceptance")],
    )
