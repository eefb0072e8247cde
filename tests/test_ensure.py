"""What a pass says of its next one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from claimd.attempt import Record
from claimd.ensure import _with_expiry
from claimd.errors import Exit
from claimd.world import Result
from material import DEVICE_NOT_AFTER, NOW

WEEK = timedelta(days=7).total_seconds()


@pytest.mark.parametrize(
    ("asked", "told"), [(None, WEEK), (0.0, 0.0), (0.4, 0.4), (30.0, 30.0), (2 * WEEK, WEEK)]
)
def test_an_identity_s_end_puts_no_next_pass_off(asked: float | None, told: float) -> None:
    """Least of all one that is due now: a claim whose end came meanwhile is destroyed then."""
    identity = {"certificate_not_after": DEVICE_NOT_AFTER.isoformat()}
    result = Result(Exit.NOTHING_TO_DO, None, asked, Record())
    assert _with_expiry(result, identity, NOW).after_seconds == told
    assert _with_expiry(result, None, NOW) is result
