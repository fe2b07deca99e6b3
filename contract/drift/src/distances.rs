//! How far two counts of the same slots are from each other: PSI, Jensen-Shannon, Kolmogorov-Smirnov, Wasserstein.
//!
//! Decides the conventions of docs/drift.md, to the last epsilon. These are shown to people and never alarmed on: none
//! of them knows how much of it is chance.

use crate::tally::Extremes;

/// The least share that PSI takes.
const PSI_FLOOR: f64 = 1e-4;

fn total(counts: &[u64]) -> f64 {
    counts.iter().map(|count| *count as f64).sum()
}

/// Shares of two sides, in every slot; `None` when a side is empty.
fn shares<'a>(p: &'a [u64], q: &'a [u64]) -> Option<impl Iterator<Item = (f64, f64)> + 'a> {
    let (n, m) = (total(p), total(q));
    let both = p.iter().zip(q).map(move |(a, b)| (*a as f64 / n, *b as f64 / m));
    (n > 0.0 && m > 0.0).then_some(both)
}

/// Population stability index over the slots that either side uses, each share at least 1e-4.
pub fn psi(baseline: &[u64], window: &[u64]) -> Option<f64> {
    let used = shares(baseline, window)?.filter(|(p, q)| *p > 0.0 || *q > 0.0);
    let floored = used.map(|(p, q)| (p.max(PSI_FLOOR), q.max(PSI_FLOOR)));
    Some(floored.map(|(p, q)| (q - p) * (q / p).ln()).sum())
}

/// Jensen-Shannon distance (the root of the divergence), base 2.
pub fn jensen_shannon(baseline: &[u64], window: &[u64]) -> Option<f64> {
    let relative = |p: f64, middle: f64| if p > 0.0 { p * (p / middle).ln() } else { 0.0 };
    let divergence = shares(baseline, window)?.map(|(p, q)| {
        let middle = 0.5 * (p + q);
        relative(p, middle) + relative(q, middle)
    });
    let divergence: f64 = divergence.sum();
    // Rounding may take it below nothing.
    Some((divergence.max(0.0) / 2.0 / std::f64::consts::LN_2).sqrt())
}

/// The largest difference of the distribution functions at the edges: the exact statistic is at least as large.
pub fn ks_on_bins(baseline: &[u64], window: &[u64]) -> Option<f64> {
    let (mut apart, mut largest) = (0.0, 0.0_f64);
    for (p, q) in shares(baseline, window)? {
        apart += p - q;
        largest = largest.max(apart.abs());
    }
    Some(largest)
}

/// One side of the Wasserstein distance on bins.
#[derive(Debug, Clone, Copy)]
pub struct Binned<'a> {
    /// Values in each bin.
    pub counts: &'a [u64],
    /// The least and the greatest of them.
    pub extremes: (f32, f32),
}

impl<'a> Binned<'a> {
    /// Counts and their extremes.
    pub fn new(counts: &'a [u64], extremes: Option<Extremes>) -> Option<Self> {
        extremes.map(|Extremes { min, max, .. }| Self { counts, extremes: (min, max) })
    }

    /// The pieces of its density: each bin's part between the extremes, where it is spread evenly.
    fn pieces(&self, edges: &[f32]) -> Vec<Piece> {
        let (min, max) = (f64::from(self.extremes.0), f64::from(self.extremes.1));
        let n = total(self.counts);
        let edge = |at: Option<usize>| at.and_then(|at| edges.get(at)).map(|edge| f64::from(*edge));
        let piece = |(bin, count): (usize, &u64)| Piece {
            from: edge(bin.checked_sub(1)).map_or(min, |low| low.max(min)),
            to: edge(Some(bin)).map_or(max, |high| high.min(max)),
            share: *count as f64 / n,
        };
        self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(piece).collect()
    }
}

/// A share of the values, spread evenly over a range, or all at one point.
#[derive(Debug, Clone, Copy)]
struct Piece {
    from: f64,
    to: f64,
    share: f64,
}

impl Piece {
    /// What of it lies below `x`; at a point of weight, `with` says whether it counts.
    fn below(&self, x: f64, with: bool) -> f64 {
        if x > self.to || (x == self.to && (with || self.from < self.to)) {
            self.share
        } else if x <= self.from {
            0.0
        } else {
            self.share * (x - self.from) / (self.to - self.from)
        }
    }
}

/// Wasserstein-1 between the densities that are even in each bin, between the extremes that were recorded.
pub fn wasserstein_on_bins(edges: &[f32], baseline: Binned<'_>, window: Binned<'_>) -> Option<f64> {
    if total(baseline.counts) == 0.0 || total(window.counts) == 0.0 {
        return None;
    }
    let (ours, theirs) = (baseline.pieces(edges), window.pieces(edges));
    let mut ends: Vec<f64> = ours.iter().chain(&theirs).flat_map(|piece| [piece.from, piece.to]).collect();
    ends.sort_by(f64::total_cmp);
    ends.dedup();
    let below = |pieces: &[Piece], x: f64, with: bool| pieces.iter().map(|piece| piece.below(x, with)).sum::<f64>();
    let apart = |x: f64, with: bool| below(&ours, x, with) - below(&theirs, x, with);
    let areas = ends.windows(2).map(|pair| area(apart(pair[0], true), apart(pair[1], false), pair[1] - pair[0]));
    Some(areas.sum())
}

/// The area under the size of a straight line from `a` to `b`.
fn area(a: f64, b: f64, width: f64) -> f64 {
    if a * b >= 0.0 {
        return (a + b).abs() / 2.0 * width;
    }
    (a * a + b * b) / (2.0 * (a.abs() + b.abs())) * width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_shares_are_no_distance() {
        let (p, q) = ([10, 20, 0, 30], [1, 2, 0, 3]);
        assert_eq!((psi(&p, &q), ks_on_bins(&p, &q)), (Some(0.0), Some(0.0)));
        assert!(jensen_shannon(&p, &q).unwrap() < 1e-8);
    }

    #[test]
    fn by_hand() {
        // Shares (1/2, 1/2) and (1/4, 3/4): (-1/4) ln(1/2) + (1/4) ln(3/2) = ln(3) / 4.
        assert!((psi(&[2, 2], &[1, 3]).unwrap() - 3f64.ln() / 4.0).abs() < 1e-15);
        assert_eq!(ks_on_bins(&[2, 2], &[1, 3]), Some(0.25));
        // Nothing in common: one bit.
        assert_eq!(jensen_shannon(&[5, 0], &[0, 7]), Some(1.0));
        // A slot that is empty on one side has the floor: (1 - 1e-4) ln(1e4), twice.
        assert!((psi(&[5, 0], &[0, 7]).unwrap() - 2.0 * 0.9999 * 1e4f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn an_empty_side_has_no_distance() {
        for (p, q) in [([0, 0], [1, 1]), ([1, 1], [0, 0])] {
            assert_eq!((psi(&p, &q), jensen_shannon(&p, &q), ks_on_bins(&p, &q)), (None, None, None));
        }
    }

    #[test]
    fn earth_is_moved_as_far_as_it_must_be() {
        let side = |counts: &'static [u64], min, max| Binned { counts, extremes: (min, max) };
        let apart = |edges: &[f32], a, b| wasserstein_on_bins(edges, a, b).unwrap();
        // Evenly over 0..1, and over 2..3: each grain goes 2 far.
        assert!((apart(&[1.0, 2.0], side(&[8, 0, 0], 0.0, 1.0), side(&[0, 0, 4], 2.0, 3.0)) - 2.0).abs() < 1e-12);
        // All at one point, and at another.
        assert_eq!(apart(&[5.0], side(&[9, 0], 5.0, 5.0), side(&[3, 0], -2.0, -2.0)), 7.0);
        // Evenly over 0..2, and all at 1: half a unit on average.
        assert!((apart(&[5.0], side(&[4, 0], 0.0, 2.0), side(&[4, 0], 1.0, 1.0)) - 0.5).abs() < 1e-12);
    }
}
