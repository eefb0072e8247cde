"""What stands beside the tests gets their readable assertions too."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("device", "material", "relay", "sandbox_world")
