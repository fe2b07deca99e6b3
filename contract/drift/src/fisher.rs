//! Fisher's exact test of two rates, two-sided: is a value bad more often here than there?
//!
//! Decides which tables count as no more likely than the one seen: those whose probability is at most its own, to
//! seven digits, so that rounding parts no equals. Knows no feature.

use crate::special::ln_gamma;

/// Probabilities closer than this are one: above the error of `ln_gamma`, below any difference that counts.
const SAME: f64 = 1e-7;

/// `bad` of `all` on either side: the two-sided p-value.
///
/// # Panics
/// When there is more bad than all.
pub fn fisher_exact(baseline: (u64, u64), window: (u64, u64)) -> f64 {
    assert!(baseline.0 <= baseline.1 && window.0 <= window.1, "no more is bad than there is");
    let table = Hypergeometric { all: baseline.1 + window.1, bad: baseline.0 + window.0, drawn: window.1 };
    let (low, high) = (table.low(), table.high());
    if low == high {
        return 1.0;
    }
    let seen = window.0;
    let limit = table.ln_pmf(seen) + SAME;
    // The probabilities rise to the mode and fall behind it: each side has one last table that counts.
    let mode = table.mode();
    let left = last(low, mode, |k| table.ln_pmf(k) <= limit);
    let right = last(0, high - mode, |back| table.ln_pmf(high - back) <= limit).map(|back| high - back);
    let tails = match (left, right) {
        // The mode itself is no likelier than what was seen.
        (Some(left), Some(right)) if left >= right => return 1.0,
        (left, right) => left.map_or(0.0, |k| table.tail(k, false)) + right.map_or(0.0, |k| table.tail(k, true)),
    };
    tails.min(1.0)
}

/// The last number from `low` to `high` for which a property holds that holds up to some number.
fn last(low: u64, high: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    if !holds(low) {
        return None;
    }
    let (mut good, mut bad) = (low, high + 1);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if holds(middle) { good = middle } else { bad = middle }
    }
    Some(good)
}

struct Hypergeometric {
    all: u64,
    bad: u64,
    drawn: u64,
}

impl Hypergeometric {
    fn low(&self) -> u64 {
        self.drawn.saturating_sub(self.all - self.bad)
    }

    fn high(&self) -> u64 {
        self.drawn.min(self.bad)
    }

    fn mode(&self) -> u64 {
        let mode = (u128::from(self.drawn) + 1) * (u128::from(self.bad) + 1) / (u128::from(self.all) + 2);
        (mode as u64).clamp(self.low(), self.high())
    }

    fn ln_pmf(&self, k: u64) -> f64 {
        let good = self.all - self.bad;
        ln_choose(self.bad, k) + ln_choose(good, self.drawn - k) - ln_choose(self.all, self.drawn)
    }

    /// The probability of `k` and all that is beyond it, upwards or downwards, away from the mode.
    fn tail(&self, k: u64, up: bool) -> f64 {
        let (mut sum, mut term, mut at) = (1.0, 1.0, k);
        let (low, high) = (self.low(), self.high());
        let good = self.all - self.bad;
        while if up { at < high } else { at > low } {
            let next = if up { at } else { at - 1 };
            // pmf(next + 1) / pmf(next)
            let rise = (self.bad - next) as f64 * (self.drawn - next) as f64
                / ((next + 1) as f64 * (good + next + 1 - self.drawn) as f64);
            term *= if up { rise } else { 1.0 / rise };
            sum += term;
            at = if up { at + 1 } else { at - 1 };
            if term < sum * 1e-17 {
                break;
            }
        }
        sum * self.ln_pmf(k).exp()
    }
}

fn ln_choose(n: u64, k: u64) -> f64 {
    if k == 0 || k == n {
        return 0.0;
    }
    ln_gamma(n as f64 + 1.0) - ln_gamma(k as f64 + 1.0) - ln_gamma((n - k) as f64 + 1.0)
}

#[cfg(test)]
#[allow(clippy::excessive_precision, clippy::unreadable_literal, reason = "as scipy writes them")]
mod tests {
    use super::*;

    /// Bad and all.
    type Side = (u64, u64);

    /// scipy 1.17: fisher_exact.
    const SCIPY: [(Side, Side, f64); 14] = [
        ((0, 5000), (4, 200), 2.1257017762553723e-06),
        ((0, 5000), (0, 200), 1.0),
        ((3, 3), (0, 3), 0.10000000000000002),
        ((10, 100), (10, 100), 1.0),
        ((500, 5000), (60, 400), 0.002728065890059108),
        ((1, 2), (1, 2), 1.0),
        ((0, 1), (1, 1), 1.0),
        ((250000, 1000000), (52000, 200000), 6.693680643230396e-21),
        ((7, 9), (1, 6), 0.040559440559440565),
        ((2, 1000), (1, 50), 0.13628599912883743),
        ((4999, 5000), (100, 200), 5.475642923753847e-153),
        ((5, 10), (0, 7), 0.04411764705882353),
        ((30, 60), (20, 40), 1.0),
        ((0, 100000), (3, 3600), 4.192555461389897e-05),
    ];

    #[test]
    fn chances_are_those_of_scipy() {
        for (baseline, window, p) in SCIPY {
            let ours = fisher_exact(baseline, window);
            assert!((ours - p).abs() <= 1e-9 * p, "{baseline:?} {window:?}: {ours:e}, scipy {p:e}");
            let turned = fisher_exact(window, baseline);
            assert!((turned - p).abs() <= 1e-9 * p, "turned {baseline:?} {window:?}: {turned:e}");
        }
    }

    #[test]
    fn a_side_without_values_says_nothing() {
        assert_eq!((fisher_exact((0, 0), (3, 9)), fisher_exact((0, 0), (0, 0))), (1.0, 1.0));
    }
}
