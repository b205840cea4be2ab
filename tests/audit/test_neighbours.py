"""Whitening, thresholds and the search: closed forms, brute force, invariance."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.audit.duplicates import _all_pairs, group_stars
from headstart.audit.findings import AuditSettings
from headstart.audit.neighbours import (
    Close,
    Pictures,
    calibrate,
    find_neighbours,
    whiten,
)
from headstart.errors import UsageError


def pictures(count: int = 300, width: int = 24, copies: int = 10, seed: int = 0) -> Pictures:
    """Random pictures; the first `copies` come again at the end, slightly changed."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, width)) * np.linspace(1, 5, width) + 7
    twins = features[:copies] + 0.02 * generator.normal(size=(copies, width))
    hashes = generator.integers(0, 2**63, size=count, dtype=np.uint64)
    all_hashes = np.concatenate([hashes, hashes[:copies] ^ np.uint64(5)])
    return Pictures(
        units=whiten(np.concatenate([features, twins]).astype(np.float16)),
        hashes=all_hashes,
        mirrored=all_hashes ^ np.uint64(0x5555555555555555),
    )


def ignore(steps: int) -> None:
    del steps


def close(pairs: list[tuple[int, int]]) -> Close:
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    distance = np.arange(len(pairs), dtype=np.float32) / 100
    return Close(first=first, second=second, distance=distance, bits=distance, count=len(pairs))


def test_whitened_rows_have_unit_length_and_forget_scale_and_offset():
    features = np.random.default_rng(0).normal(size=(200, 10))
    units = whiten(features.astype(np.float16))
    other = whiten((features * 8 + 3).astype(np.float16))
    assert np.allclose(np.linalg.norm(units, axis=1), 1, atol=1e-5)
    assert np.allclose(units @ units.T, other @ other.T, atol=2e-2)


def test_whitening_survives_equal_rows():
    units = whiten(np.ones((5, 4), dtype=np.float16))
    assert np.isfinite(units).all()


def test_bits_are_counted_and_the_mirror_image_tried():
    hashes = np.array([0, 2**64 - 1, 0b1011, 2**63], dtype=np.uint64)
    mirrored = np.array([0, 2**64 - 1, 0, 2**63], dtype=np.uint64)
    some = Pictures(units=np.zeros((4, 2), np.float32), hashes=hashes, mirrored=mirrored)
    first, second = np.array([0, 2, 0, 0]), np.array([1, 0, 2, 3])
    assert some.bits(first, second).tolist() == [64, 3, 0, 1]
    table = some.all_bits(np.arange(4), slice(None))
    assert np.array_equal(table[first, second], some.bits(first, second))


def test_thresholds_follow_the_fifth_neighbour():
    some = pictures()
    limits = calibrate(some, AuditSettings(), np.random.default_rng(0))
    distances = 1 - some.units @ some.units.T
    np.fill_diagonal(distances, np.inf)
    usual = np.median(np.sort(distances, axis=1)[:, 4])
    assert limits.usual_distance == pytest.approx(usual, rel=1e-5)
    assert limits.distance == pytest.approx(np.clip(0.4 * usual, 0.1, 0.35), rel=1e-5)
    assert limits.bits == min(10, int(0.6 * limits.usual_bits))


def test_search_finds_the_copies_and_equals_brute_force(monkeypatch):
    some = pictures()
    found = find_neighbours(some, AuditSettings(), 0, ignore)
    assert set(zip(found.both.first, found.both.second, strict=True)) == {
        (i, 300 + i) for i in range(10)
    }
    distances = some.distances(slice(None), slice(None))
    bits = some.all_bits(np.arange(310), slice(None))
    upper = np.triu(np.ones_like(distances, dtype=bool), 1)
    limits = found.thresholds
    by_hash = (bits <= limits.bits) & (distances < 0.75 * limits.usual_distance)
    by_hash |= (bits <= 0.25 * limits.bits) & (distances < limits.usual_distance)
    by_hash &= upper & (distances >= limits.distance)
    assert found.by_hash.count == by_hash.sum()
    monkeypatch.setattr("headstart.audit.neighbours.BLOCK", 7)
    monkeypatch.setattr("headstart.audit.neighbours.TILE", 11)
    again = find_neighbours(some, AuditSettings(), 0, ignore)
    for name in ("both", "by_embedding", "by_hash"):
        assert np.array_equal(getattr(again, name).first, getattr(found, name).first)


def test_only_the_closest_pairs_are_kept_but_all_counted():
    some = pictures(copies=30)
    found = find_neighbours(some, AuditSettings(most_pairs=4), 0, ignore)
    whole = find_neighbours(some, AuditSettings(), 0, ignore)
    assert found.both.count == whole.both.count == 30
    assert np.array_equal(found.both.first, whole.both.first[:4])


def test_the_index_finds_what_the_exact_search_finds():
    pytest.importorskip("faiss")
    some = pictures(1500, copies=60)
    exact = find_neighbours(some, AuditSettings(), 0, ignore)
    approximate = find_neighbours(some, AuditSettings(exact_limit=100), 0, ignore)
    assert exact.recall is None
    assert approximate.recall is not None
    assert approximate.recall >= 0.9
    found = set(zip(approximate.both.first, approximate.both.second, strict=True))
    expected = set(zip(exact.both.first, exact.both.second, strict=True))
    assert found <= expected
    assert len(found) >= 0.9 * len(expected)
    assert approximate.recall_of.endswith(" near pairs")


def test_recall_is_measured_on_nearest_pictures_where_hardly_any_are_near():
    pytest.importorskip("faiss")
    found = find_neighbours(pictures(600, copies=2), AuditSettings(exact_limit=100), 0, ignore)
    assert found.recall_of.startswith("the nearest neighbours of 500 pictures")
    assert 0 < found.recall <= 1


def test_the_index_reports_what_the_hash_alone_calls_near(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr("headstart.audit.neighbours.INDEX_PROBES", 1000)  # every list
    some = pictures(1200, copies=0)
    hashes = some.hashes.copy()
    exact = calibrate(some, AuditSettings(), np.random.default_rng(0))
    likeness = some.units @ some.units.T
    np.fill_diagonal(likeness, -1)
    first, second = np.unravel_index(likeness.argmax(), likeness.shape)
    assert exact.distance < 1 - likeness.max() < exact.usual_distance
    hashes[second] = hashes[first]  # an equal hash, an embedding that is not near
    changed = Pictures(units=some.units, hashes=hashes, mirrored=some.mirrored)
    pair = (min(first, second), max(first, second))
    for settings in (AuditSettings(), AuditSettings(exact_limit=100)):
        by_hash = find_neighbours(changed, settings, 0, ignore).by_hash
        assert pair in set(zip(by_hash.first, by_hash.second, strict=True))


def test_stars_do_not_chain():
    chain = close([(0, 1), (1, 2), (2, 3), (3, 4)])
    middle = group_stars(chain, 6, largest=50)
    for picture, centre in enumerate(middle):
        assert picture == centre or {picture, int(centre)} in (*({0, 1}, {1, 2}, {2, 3}, {3, 4}),)
    assert len(set(middle)) > 2  # five in a row are not one group
    assert middle[5] == 5


def test_a_star_is_capped():
    middle = group_stars(close([(0, other) for other in range(1, 10)]), 10, largest=4)
    assert np.bincount(middle).max() == 4
    assert set(np.flatnonzero(middle == 0)) == {0, 1, 2, 3}  # the closest ones


@pytest.mark.parametrize(
    "wrong", [{"embedding_factor": 0.0}, {"largest_group": 1}, {"warning_margin": 1.5}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        AuditSettings(**wrong)


def test_only_so_many_pairs_are_told_but_all_make_groups(monkeypatch):
    monkeypatch.setattr("headstart.audit.duplicates.MOST_TOLD", 3)
    some = pictures(copies=10)
    count = len(some.units)
    found = find_neighbours(some, AuditSettings(), 0, ignore)
    stars = group_stars(found.both, count, largest=50)
    told = _all_pairs(np.arange(count), np.arange(count), np.arange(count), stars, found)
    assert sum(pair.kind == "near" for pair in told) == 3
    assert (stars != np.arange(count)).sum() == 10
