"""Tables that are wider than the terminal are broken, and nothing of them is lost."""

import sys

from dynalab.cli import options
from dynalab.core.tables import aligned

ROWS = [
    ["setting", "median", "path"],
    ["rescale, scale 0.01", "1,234", "outputs/parity/default-at100-rescale-54760f0dd7"],
    ["a", "12", "outputs/parity"],
]


def test_tables_fit_the_terminal_and_lose_nothing():
    whole = list(aligned(ROWS))
    assert whole[1] == "rescale, scale 0.01  1,234   outputs/parity/default-at100-rescale-54760f0dd7"
    assert list(aligned(ROWS, width=len(whole[1]))) == whole
    for width in (60, 40, 30):
        lines = list(aligned(ROWS, [False, True, False], width))
        assert all(len(line) <= width for line in lines) and len(lines) > len(ROWS)
        # A number stays whole; of what is broken nothing is lost.
        assert sum("1,234" in line for line in lines) == 1
        assert sorted("".join(lines).replace(" ", "")) == sorted("".join(whole).replace(" ", ""))
    # Where nothing fits the numbers still stand.
    assert "1,234" in "\n".join(aligned(ROWS, [False, True, False], 5))


def test_only_a_terminal_breaks_tables(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert len(options.columns(ROWS[0], ROWS[1:]).splitlines()) == 3
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = options.columns(ROWS[0], ROWS[1:]).splitlines()
    assert len(lines) > 3 and max(map(len, lines)) <= 40
