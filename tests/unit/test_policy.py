from dataclasses import fields

import pytest

from validators.policy import POLICIES, STANDARD, STRICT, Policy, PolicyName


def test_the_contract_fixes_the_durations_and_sizes() -> None:
    assert (STANDARD.min_duration_s, STANDARD.max_duration_s) == (4.0, 15.0)
    assert (STANDARD.max_image_pixels, STANDARD.max_frame_pixels) == (50_000_000, 8_300_000)


def test_strict_differs_only_in_what_too_close_to_call_means() -> None:
    names = {field.name for field in fields(Policy)}
    differing = {name for name in names if getattr(STANDARD, name) != getattr(STRICT, name)}
    assert differing == {"name", "uncertain_fails"}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.label)
def test_a_warning_comes_before_a_failure(policy: Policy) -> None:
    for high_is_bad in ("face_missing", "background", "face_cut_off"):
        warn = getattr(policy, f"{high_is_bad}_warn")
        assert warn < getattr(policy, f"{high_is_bad}_fail")
    assert policy.clipped_audio_warn_per_s < policy.clipped_audio_fail_per_s
    assert policy.noisy_audio_warn_db > policy.noisy_audio_fail_db
    assert policy.too_little_speech_warn_s > policy.too_little_speech_fail_s
    assert policy.low_resolution_warn_px > policy.low_resolution_fail_px
    for direction in ("aside", "up", "down", "tilted"):
        warn_deg = getattr(policy, f"face_{direction}_warn_deg")
        fail_deg = getattr(policy, f"face_{direction}_fail_deg")
        assert warn_deg < fail_deg - policy.face_turned_margin_deg
    assert policy.face_too_small_warn > policy.face_too_small_fail


def test_every_policy_is_found_by_its_name() -> None:
    assert set(POLICIES) == set(PolicyName)
    assert all(policy.name is name for name, policy in POLICIES.items())
