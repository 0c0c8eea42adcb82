"""How values are written as the text of a config."""

import pytest

from dap.new_config.code import Code, config_text, one_line
from dap.new_config.pipelines import edited


def test_values_are_read_back_as_they_were():
    values = {
        "a": {"x": 1, "type": "ä", "deep": {"list": [1.5, None, True, float("inf")], "one": (1,)}},
        "b": [{"k": "v" * 30}] * 5,
        "c": {"not-a-name": 1, "class": 2},
        "d": Code("a['x'] + 1"),
    }
    text = config_text("Says what it is.", "base.py", values, {"b": "why", "d": "the sum"})

    read = {}
    exec(text, read)
    assert {name: read[name] for name in "abc"} == {name: values[name] for name in "abc"}
    assert read["d"] == 2
    assert "b = [  # why\n" in text
    assert "d = a['x'] + 1  # the sum\n" in text
    assert max(map(len, text.splitlines())) <= 100


def test_long_dicts_fill_their_lines():
    inner = {"first": "x" * 40, "second": "y" * 40, "steps": [{"a": "z" * 50}] * 2, "last": 1}
    text = config_text("", "", {"a": {"only": inner}}, {})

    assert text.splitlines()[2:] == [
        "a = dict(only=dict(",
        f'    first="{"x" * 40}",',
        f'    second="{"y" * 40}",',
        "    steps=[",
        f'        dict(a="{"z" * 50}"),',
        f'        dict(a="{"z" * 50}")],',
        "    last=1))",
    ]


def test_pipelines_are_written_as_edits():
    own = [{"type": "A"}, {"type": "B"}, {"type": "C"}]

    assert edited("steps", "_base_.own", own, own) == {}
    assert edited("steps", "_base_.own", own, [own[0], {"type": "D"}, own[2]]) == {
        "steps": "[*_base_.own]",
        "steps[1]": {"type": "D"},
    }
    assert edited("steps", "_base_.own", own, own[:2]) == {"steps": own[:2]}


def test_other_values_are_refused():
    with pytest.raises(TypeError, match="a config cannot hold"):
        one_line({1, 2})
