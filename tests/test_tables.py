"""Tables as somebody else may write them are read as by hand, or refused in a line."""

from __future__ import annotations

import pytest

from tests import tables


@pytest.mark.parametrize("number", range(30))
def test_tables_are_read_as_by_hand_or_refused(tmp_path, number):
    assert tables.try_number(1000 + number, tmp_path) == []
