"""Does `petrel drift compare` say what numpy and scipy say of the same two tables?

Writes generated cases as CSV files, lets the real `petrel` compare each, and computes every figure again with the
conventions of docs/drift.md: edges, counts, PSI, Jensen-Shannon, Kolmogorov-Smirnov, Wasserstein, chi-squared, the
smooth test, Fisher's exact test, and which features are discoveries. Statistics must be equal to 1e-9 of their value,
chances to 1e-6. Prints a line for each difference and a summary; exits 1 if there is any difference.

    drift.py --bin FOLDER
"""

import argparse
import json
import subprocess
import sys
import tempfile
from math import ceil
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.spatial.distance import jensenshannon

BINS, FLOOR, EXPECTED, SMOOTH, TESTS, CATEGORIES = 20, 1e-4, 5, 4, 3, 32
WARN, PAGE = 0.01, 0.001
LEAST_CASES = 40
NAN, INF = np.float32("nan"), np.float32("inf")
failed = []
checked = 0


# What is compared: each case is a list of features (name, baseline, window); float32, or texts with None.


def cases():
    """Every case by its name."""
    rng = np.random.default_rng(20261128)
    normal = lambda n, mean=0.0, std=1.0: rng.normal(mean, std, n).astype(np.float32)  # noqa: E731
    one = lambda before, now: [("x", np.asarray(before, np.float32), np.asarray(now, np.float32))]  # noqa: E731
    base = normal(5000)
    yield "the same rows", one(base, base)
    for shift in (0, 0.05, 0.2, 0.5, 1, 3, 40):
        yield f"moved by {shift}", one(base, normal(500, shift))
    for std in (0.1, 0.5, 0.9, 1.2, 2, 10):
        yield f"{std} times as wide", one(base, normal(400, 0, std))
    for n, m in ((5000, 50), (5000, 20), (5000, 5), (5000, 2), (5000, 1), (1, 1), (3, 700), (20, 20), (21, 40), (100_000, 3600)):
        yield f"{n} rows and {m}", one(normal(n), normal(m, 0.3))
    yield "heavy tails", one(rng.standard_cauchy(3000), rng.standard_cauchy(300))
    yield "skew", one(rng.lognormal(0, 1, 3000), rng.lognormal(0.2, 1, 300))
    yield "whole numbers", one(rng.poisson(2, 3000), rng.poisson(2.4, 300))
    yield "mostly zero", one(np.maximum(normal(4000) - 1.5, 0), np.maximum(normal(400) - 1.2, 0))
    yield "yes and no", one(rng.random(4000) < 0.5, rng.random(400) < 0.6)
    yield "seldom yes", one(rng.random(4000) < 0.002, rng.random(400) < 0.01)
    yield "two clusters", one(np.r_[normal(2000, -5), normal(2000, 5)], np.r_[normal(100, -5), normal(200, 5)])
    yield "one value", one(np.full(1000, 5), np.full(100, 5))
    yield "one value, and below it", one(np.full(1000, 5), np.full(100, 4))
    yield "one value, and above it", one(np.full(1000, 5), np.full(100, 6))
    yield "one value, and around it", one(np.full(1000, 5), normal(100, 5))
    yield "many values, and then one", one(base, np.full(200, 0.25))
    yield "both zeros", one(np.tile(np.float32([-0.0, 0.0, 1.0]), 300), np.tile(np.float32([0.0, -0.0]), 50))
    yield "great numbers", one(normal(1000) * np.float32(1e37), normal(100) * np.float32(1.1e37))
    yield "small numbers", one(normal(1000) * np.float32(1e-30), normal(100) * np.float32(2e-30))
    yield "far from zero", one(normal(2000, 1e6), normal(200, 1e6))
    yield "tiny and disjoint", one([1, 2, 3], [7, 8])
    with_holes = lambda values, share, what: np.where(rng.random(len(values)) < share, what, values)  # noqa: E731
    for before, now in ((0, 0.02), (0.1, 0.1), (0.1, 0.3), (0.5, 0.01), (0, 0.9)):
        yield f"missing {before} and {now}", one(with_holes(base, before, NAN), with_holes(normal(200), now, NAN))
    yield "all missing now", one(base, np.full(100, NAN))
    yield "all missing before", one(np.full(500, NAN), normal(100))
    yield "all missing", one(np.full(500, NAN), np.full(60, NAN))
    yield "infinities", one(base, with_holes(with_holes(normal(300), 0.05, INF), 0.05, -INF))
    yield "infinities on both sides", one(with_holes(base, 0.02, INF), with_holes(normal(300), 0.03, -INF))
    yield "only infinities now", one(base, np.full(70, INF))
    yield "every kind of hole", one(with_holes(with_holes(base, 0.1, NAN), 0.1, INF), with_holes(with_holes(normal(250), 0.2, NAN), 0.1, -INF))
    yield "far outside", one(base, with_holes(normal(200), 0.03, np.float32(1e6)))
    texts = lambda names, shares, n: [None if i == len(names) else names[i] for i in rng.choice(len(shares), n, p=shares)]  # noqa: E731
    colours = ["red", "green", "blue"]
    yield "categories", [("x", texts(colours, [0.5, 0.3, 0.15, 0.05], 2000), texts(colours, [0.4, 0.4, 0.15, 0.05], 200))]
    yield "a category that nobody saw", [("x", texts(colours, [0.5, 0.3, 0.2], 2000), texts(colours + ["pink"], [0.5, 0.3, 0.1, 0.1], 200))]
    yield "a category that is gone", [("x", texts(colours, [0.5, 0.3, 0.2], 2000), texts(["red"], [1.0], 90))]
    many = [f"c{i:03}" for i in range(60)]
    weights = 1 / np.arange(1, 61)
    yield "more categories than slots", [("x", texts(many, weights / weights.sum(), 9000), texts(many[::-1], weights / weights.sum(), 500))]
    yield "no category now", [("x", texts(colours, [0.5, 0.3, 0.2], 300), [None] * 60)]
    yield "twelve features", [(f"f{i}", normal(3000), normal(300, 0.1 * i if i > 8 else 0)) for i in range(12)]
    for seed in range(6):
        yield f"a mixture {seed}", one(
            rng.choice([normal(1, i) for i in range(-3, 4)], 2500).ravel() + normal(2500, 0, 0.3),
            with_holes(rng.choice([normal(1, i) for i in range(-3, 4)], 60 + 90 * seed).ravel(), 0.03 * seed, NAN),
        )


# How numpy and scipy see them.


def slots(before, now):
    """Edges, categories, and both sides' counts in each slot, then missing, +inf and -inf."""
    if isinstance(before, list):
        seen = sorted({value for value in before if value is not None})
        named = sorted(seen, key=lambda value: (-before.count(value), value))[:CATEGORIES]
        count = lambda side: np.array([side.count(value) for value in named] + [sum(v is not None and v not in named for v in side)])  # noqa: E731
        return [], named, count(before), count(now), np.array([before.count(None), 0, 0]), np.array([now.count(None), 0, 0])
    finite = np.sort(before[np.isfinite(before)] + np.float32(0))
    n = len(finite)
    ranks = [ceil(i * n / BINS) for i in range(1, BINS)] if n else []
    edges = np.unique(finite[[rank - 1 for rank in ranks]]) if n else np.array([], np.float32)
    count = lambda side: np.bincount(np.searchsorted(edges, side[np.isfinite(side)], side="left"), minlength=len(edges) + 1)  # noqa: E731
    holes = lambda side: np.array([np.isnan(side).sum(), (side == INF).sum(), (side == -INF).sum()])  # noqa: E731
    return edges, [], count(before), count(now), holes(before), holes(now)


def psi(before, now):
    if not before.sum() or not now.sum():
        return None
    used = (before > 0) | (now > 0)
    p, q = (np.maximum(side[used] / side.sum(), FLOOR) for side in (before, now))
    return float(np.sum((q - p) * np.log(q / p)))


def chi2(before, now):
    used = (before > 0) | (now > 0)
    if not before.sum() or not now.sum() or used.sum() < 2:
        return None
    found = stats.chi2_contingency(np.array([before[used], now[used]]), correction=False)
    return found.statistic, found.dof, found.pvalue


def groups(before, rows):
    """Which group each bin is in."""
    group, inside, of = 0, 0, []
    for count in before:
        of.append(group)
        inside += int(count)
        if before.sum() and inside * rows >= EXPECTED * int(before.sum()):
            group, inside = group + 1, 0
    if group and of[-1] == group:
        of = [min(g, group - 1) for g in of]
    return of


def merged(before, now):
    of = groups(before, int(now.sum()))
    fold = lambda side: np.bincount(of, weights=side, minlength=of[-1] + 1).astype(int)  # noqa: E731
    return fold(before), fold(now)


def smooth(before, now):
    """Neyman's test, its polynomials by a QR decomposition of the weighted powers of the middle ranks."""
    used = before > 0
    if used.sum() < 2 or not now.sum():
        return None
    p = before / before.sum()
    u = 2 * (np.cumsum(p) - p / 2) - 1
    degrees = min(SMOOTH, int(used.sum()) - 1)
    powers = np.polynomial.legendre.legvander(u, degrees)
    _, triangle = np.linalg.qr(np.sqrt(p[used])[:, None] * powers[used])
    values = powers @ np.linalg.inv(triangle)
    n, m = before.sum(), now.sum()
    z = values[:, 1:].T @ now / m * np.sqrt(n * m / (n + m))
    statistic = float(z @ z)
    return statistic, degrees, float(stats.chi2.sf(statistic, degrees))


def ks(before, now):
    # Only the statistic is taken: the way to the chance of it is whichever is quick.
    method = "exact" if len(before) * len(now) < 10_000 else "asymp"
    return float(stats.ks_2samp(before, now, method=method).statistic)


def fisher(bad_before, before, bad_now, now):
    return float(stats.fisher_exact([[bad_before, before - bad_before], [bad_now, now - bad_now]]).pvalue)


def quantiles(counts, edges, low, high):
    """The inverse of the distribution function: shares from below, and the piece of line over each."""
    ends = [-np.inf, *map(float, edges), np.inf]
    pieces = [(max(a, low), min(b, high), int(c)) for a, b, c in zip(ends, ends[1:], counts) if c]
    shares = np.cumsum([0] + [c for *_, c in pieces])
    return pieces, shares


def wasserstein_on_bins(edges, before, now, sides):
    """The area between the two inverse functions."""
    (ours, at), (theirs, seen) = (quantiles(c, edges, float(s.min()), float(s.max())) for c, s in zip((before, now), sides))
    n, m = int(at[-1]), int(seen[-1])
    # Shares in units of 1 / (n m), so that equal ends are equal.
    ends = np.unique(np.r_[at * m, seen * n])
    def value(pieces, ticks, scale, t, from_right):
        k = np.searchsorted(ticks * scale, t, side="right" if from_right else "left") - 1
        a, b, c = pieces[k]
        return a + (b - a) * (t - ticks[k] * scale) / (c * scale)
    total = 0.0
    for a, b in zip(ends, ends[1:]):
        left = value(ours, at, m, a, True) - value(theirs, seen, n, a, True)
        right = value(ours, at, m, b, False) - value(theirs, seen, n, b, False)
        width = (b - a) / (n * m)
        if left * right >= 0:
            total += abs(left + right) / 2 * width
        else:
            total += (left**2 + right**2) / (2 * (abs(left) + abs(right))) * width
    return total


# The comparison.


def check(where, what, ours, theirs, rel=1e-9, absolute=1e-14):
    global checked
    checked += 1
    if ours is None or theirs is None:
        same = ours is None and theirs is None
    else:
        same = abs(ours - theirs) <= max(rel * abs(theirs), absolute)
    if not same:
        failed.append((where, what))
        print(f"FAIL {where}: {what}: ours {ours!r}, theirs {theirs!r}")


def check_test(where, what, ours, theirs):
    if ours is None or theirs is None:
        check(where, what, ours, theirs)
        return
    check(where, f"{what}, statistic", ours["statistic"], theirs[0], absolute=1e-12)
    check(where, f"{what}, degrees", ours["df"], theirs[1], 0, 0)
    check(where, f"{what}, chance", ours["p"], theirs[2], 1e-6, 1e-12)


def check_feature(where, told, before, now):
    edges, named, ours, theirs, holes_before, holes_now = slots(before, now)
    numbers = not named
    check(where, "edges", list(np.float32(told["edges"])) == list(edges) and told["categories"] == named, True)
    for side, counts, holes in (("baseline", ours, holes_before), ("window", theirs, holes_now)):
        said = told[side]
        check(where, f"{side} counts", said["counts"] == list(counts), True)
        check(where, f"{side} holes", [said[k] for k in ("missing", "plus_inf", "minus_inf")] == list(holes), True)
    every = np.r_[ours, holes_before], np.r_[theirs, holes_now]
    check(where, "PSI", told["psi"], psi(*every))
    both = every[0].sum() > 0 and every[1].sum() > 0
    js = jensenshannon(*every, base=2) if both else None
    # The root makes a rounding error of 1e-16 one of 1e-8: the divergence is compared.
    check(where, "JS", told["jensen_shannon"] and told["jensen_shannon"] ** 2, js and float(js) ** 2)
    check_test(where, "chi-squared", told["chi_squared"], chi2(*every))
    check_test(where, "chi-squared, merged", told["chi_squared_merged"], chi2(*merged(ours, theirs)))
    check_test(where, "smooth", told["smooth"], smooth(ours, theirs))
    n, m = len(before), len(now)
    missing_p = fisher(holes_before.sum(), n, holes_now.sum(), m)
    check(where, "missing", told["missing_p"], missing_p, 1e-6, 1e-12)
    far = 0
    if numbers:
        far = check_numbers(where, told, edges, ours, theirs, before, now)
    finding = told["finding"]
    grouped = merged(ours, theirs)
    tests = smooth(*grouped), chi2(*grouped)
    unusable = fisher(holes_before.sum(), n, holes_now.sum() + far, m)
    chances = [1.0 if test is None else test[2] for test in tests] + [unusable]
    for what, chance in zip(("p_smooth", "p_chi_squared", "p_unusable"), chances):
        check(where, what, finding[what], chance, 1e-6, 1e-12)
    check(where, "p", finding["p"], min(1.0, TESTS * min(chances)), 1e-6, 1e-12)
    return min(1.0, TESTS * min(chances))


def check_numbers(where, told, edges, ours, theirs, before, now):
    """What only numbers have; gives how many are far outside."""
    before, now = (np.sort(side[np.isfinite(side)].astype(np.float64) + 0) for side in (before, now))
    for side, values in (("baseline", before), ("window", now)):
        some = len(values) > 0
        scale = float(np.max(np.abs(values))) if some else 0
        check(where, f"{side} mean", told[side]["mean"], float(values.mean()) if some else None, absolute=1e-12 * scale)
        check(where, f"{side} std", told[side]["std"], float(values.std()) if some else None, absolute=1e-12 * scale)
    if not len(before):
        return 0
    low, high = before[0], before[-1]
    outside = int((now < low).sum()), int((now > high).sum())
    check(where, "outside", (told["window"]["below"], told["window"]["above"]) == outside, True)
    # The limits are FP32 on a device.
    far_low, far_high = np.float32(low - (high - low)), np.float32(high + (high - low))
    far = int((now < far_low).sum() + (now > far_high).sum())
    if not len(now):
        for what in ("ks", "ks_on_bins", "wasserstein", "wasserstein_on_bins"):
            check(where, what, told[what], None)
        return far
    check(where, "ks", told["ks"], ks(before, now))
    index = lambda side: np.searchsorted(edges.astype(np.float64), side, side="left")  # noqa: E731
    check(where, "ks_on_bins", told["ks_on_bins"], ks(index(before), index(now)))
    check(where, "wasserstein", told["wasserstein"], float(stats.wasserstein_distance(before, now)), absolute=1e-14 * abs(high))
    on_bins = wasserstein_on_bins(edges, ours, theirs, (before, now))
    check(where, "wasserstein_on_bins", told["wasserstein_on_bins"], on_bins, absolute=1e-14 * abs(high))
    return far


def cell(value):
    return "" if value is None else value if isinstance(value, str) else repr(float(value))


def write(path, columns):
    rows = zip(*(column for _, column in columns))
    lines = [",".join(name for name, _ in columns + [("row", None)])]
    # The number of the row keeps a line with an empty cell from being an empty line.
    lines += [",".join([*map(cell, row), str(at)]) for at, row in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=Path, required=True)
    petrel = parser.parse_args().bin / "petrel"
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        before_csv, now_csv = Path(folder) / "before.csv", Path(folder) / "now.csv"
        for name, features in cases():
            write(before_csv, [(feature, before) for feature, before, _ in features])
            write(now_csv, [(feature, now) for feature, _, now in features])
            command = [petrel, "drift", "compare", "--baseline", before_csv, "--window", now_csv, "--ignore", "row", "--json"]
            told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            check(name, "features", [f["name"] for f in told["features"]] == [f for f, *_ in features], True)
            chances = [check_feature(name, of, before, now) for of, (_, before, now) in zip(told["features"], features)]
            # Which features are discoveries, where there are rows enough to decide.
            adjusted = stats.false_discovery_control(chances)
            levels = [of["finding"]["level"] for of in told["features"]]
            rows = len(features[0][2])
            for level, chance in zip(levels, adjusted):
                quiet = bool(rows < 50 or chance > WARN)
                check(name, f"level {level} at {chance:.3g}", (level == "quiet") == quiet, True)
                check(name, f"page at {chance:.3g}", bool(level != "page" or chance <= PAGE), True)
            count += 1
    print(f"{count} cases, {checked} figures, {len(failed)} differences")
    sys.exit(0 if not failed and count >= LEAST_CASES else 1)


main()
