"""What the package asks of the machine before the tensor library is there."""

from __future__ import annotations

import os

import pytest

from pixcloud.machine import SPINS, let_threads_sleep


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, ("PASSIVE", str(SPINS))),
        ({"GOMP_SPINCOUNT": "7"}, ("PASSIVE", "7")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None)),
    ],
)
def test_threads_sleep_soon(
    before: dict[str, str], after: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the user has said otherwise."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    let_threads_sleep()
    found = os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT")
    assert found == after
    let_threads_sleep()
    assert found == (os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
