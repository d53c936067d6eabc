from __future__ import annotations

import json

from diffad.attacks.checks import CheckOutcome, failed_mandatory
from diffad.attacks.checks.outcome import not_applicable

PASSED = CheckOutcome("a", True, 0.0, "largest distance", True)
FAILED = CheckOutcome("b", False, 0.25, "share of images", True)
OPTIONAL = CheckOutcome("c", False, 0.25, "largest change")


def test_only_mandatory_failures_withhold_a_number():
    skipped = not_applicable("d", "the attack needs no gradients")
    assert failed_mandatory([PASSED, FAILED, OPTIONAL, skipped]) == ["b"]
    assert [one.failed for one in (PASSED, FAILED, OPTIONAL, skipped)] == [False, True, True, False]
    assert skipped.value is None


def test_sentences_and_json():
    assert FAILED.sentence == "b: FAILED, 0.25 share of images"
    assert not_applicable("d", "no gradients").sentence == "d: not run, no gradients"
    assert CheckOutcome(**json.loads(json.dumps(FAILED.as_dict()))) == FAILED
