"""Settings of Step 2: the rule, and how it reads its thresholds."""

import pytest

from dap.pseudo_boxes import PseudoBoxSettings
from dap.pseudo_boxes.settings import with_changes


def test_thresholds_default_to_those_of_the_rule():
    assert PseudoBoxSettings().rule == "extent"
    assert PseudoBoxSettings().thresholds == (0.55, 0.8, 1.0, 1.25)
    for rule in ("paper", "release"):
        assert PseudoBoxSettings(rule=rule).thresholds == (0.2, 0.3, 0.4, 0.5)
    assert PseudoBoxSettings().as_json()["thresholds"] == [0.55, 0.8, 1.0, 1.25]


def test_thresholds_are_checked_by_rule():
    assert PseudoBoxSettings(thresholds=[1.5]).thresholds == (1.5,)
    with pytest.raises(ValueError, match=r"values in \[0, 1\) under rule='paper', found \[1.5\]"):
        PseudoBoxSettings(thresholds=[1.5], rule="paper")
    assert PseudoBoxSettings(thresholds=[0], rule="paper").thresholds == (0.0,)
    with pytest.raises(ValueError, match="positive multiples of Otsu's threshold"):
        PseudoBoxSettings(thresholds=[0])
    with pytest.raises(ValueError, match="rule: expected one of"):
        PseudoBoxSettings(rule="extents")


def test_changed_rule_does_not_read_thresholds_of_another_kind():
    config = {"flip": False, "rule": "paper", "thresholds": (0.2, 0.4)}
    assert PseudoBoxSettings(**with_changes(config, {"rule": "extent"})) == PseudoBoxSettings(
        flip=False
    )
    kept = with_changes(config, {"rule": "release"})
    assert kept["thresholds"] == (0.2, 0.4)  # values of τ, too
    given = with_changes(config, {"rule": "extent", "thresholds": (0.6,)})
    assert given["thresholds"] == (0.6,)
    assert with_changes(config, {"nms_iou": 0.5}) == {**config, "nms_iou": 0.5}
    back = with_changes({"thresholds": (0.6, 1.2)}, {"rule": "paper"})  # extent is the default
    assert PseudoBoxSettings(**back).thresholds == (0.2, 0.3, 0.4, 0.5)


def test_log_line_names_the_rule_and_the_other():
    line = PseudoBoxSettings().rule_line()
    assert "rule='extent' at 0.55 x Otsu, 0.8 x Otsu, 1 x Otsu, 1.25 x Otsu" in line
    assert "the default. rule='paper'" in line
    line = PseudoBoxSettings(rule="paper", thresholds=(0.2, 0.5)).rule_line()
    assert "rule='paper' at τ 0.2, τ 0.5" in line
    assert "not the default, which is rule='extent' (--rule extent)" in line
