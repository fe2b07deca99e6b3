//! Directions in which counts can differ: polynomials that are orthonormal under the baseline's shares.
//!
//! Decides the groups of bins that a window has enough rows for, and the components z that both tests are made
//! of. By the first component a distribution has moved, by the second it is wider, by the third more skew.

/// The rows that a group must expect.
const EXPECTED: u128 = 5;

/// Which group each bin is in: bins are walked in order, a group is closed when the window expects five rows in it, and
/// a short last group joins the one before.
pub(crate) fn groups(baseline: &[u64], rows: u64) -> Vec<usize> {
    let all: u128 = baseline.iter().map(|count| u128::from(*count)).sum();
    let (mut group, mut inside, mut of) = (0, 0u128, Vec::with_capacity(baseline.len()));
    for count in baseline {
        of.push(group);
        inside += u128::from(*count);
        if inside * u128::from(rows) >= EXPECTED * all && all > 0 {
            (group, inside) = (group + 1, 0);
        }
    }
    // Nothing opened the group of this number: the walk ended on a close. Otherwise the last one is short.
    let last = of.last().copied().unwrap_or(0);
    if last == group && group > 0 {
        of.iter_mut().filter(|of| **of == group).for_each(|of| *of -= 1);
    }
    of
}

/// Counts of groups.
pub(crate) fn grouped(counts: &[u64], groups: &[usize]) -> Vec<u64> {
    let mut sums = vec![0; groups.last().map_or(0, |last| last + 1)];
    for (count, group) in counts.iter().zip(groups) {
        sums[*group] += count;
    }
    sums
}

/// Polynomials of degree 1 to `degrees` (fewer when there are fewer slots in use), each with a value for each slot.
///
/// The argument is the slot's rank in the middle; Gram and Schmidt's steps are done twice, which keeps them
/// orthogonal to the last digits.
pub(crate) fn polynomials(baseline: &[u64], degrees: usize) -> Vec<Vec<f64>> {
    let all: f64 = baseline.iter().map(|count| *count as f64).sum();
    let shares: Vec<f64> = baseline.iter().map(|count| *count as f64 / all).collect();
    let used = baseline.iter().filter(|count| **count > 0).count();
    let mut before = 0.0;
    let ranks: Vec<f64> = shares
        .iter()
        .map(|share| {
            let middle = before + share / 2.0;
            before += share;
            middle - 0.5
        })
        .collect();
    let product = |a: &[f64], b: &[f64]| shares.iter().zip(a).zip(b).map(|((p, a), b)| p * a * b).sum::<f64>();
    let mut found: Vec<Vec<f64>> = vec![vec![1.0; baseline.len()]];
    while found.len() <= degrees && found.len() < used {
        let highest = &found[found.len() - 1];
        let mut next: Vec<f64> = highest.iter().zip(&ranks).map(|(value, rank)| value * rank).collect();
        for lower in found.iter().chain(&found) {
            let along = product(&next, lower);
            next.iter_mut().zip(lower).for_each(|(value, lower)| *value -= along * lower);
        }
        let length = product(&next, &next).sqrt();
        next.iter_mut().for_each(|value| *value /= length);
        found.push(next);
    }
    found.remove(0);
    found
}

/// How far a window is from the baseline along each polynomial, in standard deviations of chance.
pub(crate) fn components(polynomials: &[Vec<f64>], baseline: &[u64], window: &[u64]) -> Vec<f64> {
    let total = |counts: &[u64]| counts.iter().map(|count| *count as f64).sum::<f64>();
    let (n, m) = (total(baseline), total(window));
    let weight = (n * m / (n + m)).sqrt();
    let along = |values: &Vec<f64>| values.iter().zip(window).map(|(value, count)| value * *count as f64).sum::<f64>();
    polynomials.iter().map(|values| along(values) / m * weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_expect_five_rows() {
        // Shares .1 of 50 rows: each bin alone. Of 20 rows: three bins, and the last joins.
        assert_eq!(groups(&[10; 10], 50), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(groups(&[10; 10], 20), [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]);
        // Nothing left over, an empty bin at the end, all too few, nothing at all.
        assert_eq!(groups(&[50, 50], 10), [0, 1]);
        assert_eq!(groups(&[50, 50, 0], 10), [0, 1, 1]);
        assert_eq!(groups(&[50, 50], 4), [0, 0]);
        assert_eq!(groups(&[0, 0], 4), [0, 0]);
        assert_eq!(grouped(&[1, 2, 3], &[0, 1, 1]), [1, 5]);
    }

    #[test]
    fn polynomials_are_orthonormal_to_the_last_degree() {
        let counts: Vec<u64> = (1..=20).map(|i| i * i % 23 + 1).collect();
        let found = polynomials(&counts, 19);
        assert_eq!(found.len(), 19);
        let all: f64 = counts.iter().sum::<u64>() as f64;
        for (i, a) in found.iter().enumerate() {
            let mean: f64 = counts.iter().zip(a).map(|(c, a)| *c as f64 / all * a).sum();
            assert!(mean.abs() < 1e-10, "{i}");
            for (j, b) in found.iter().enumerate() {
                let product: f64 = counts.iter().zip(a.iter().zip(b)).map(|(c, (a, b))| *c as f64 / all * a * b).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-10, "{i} {j} {product}");
            }
        }
    }

    #[test]
    fn two_bins_have_one_direction() {
        // Shares 1/2: the values are -1 and 1; 8 of 10 above: (6 / 10) sqrt(100 * 10 / 110).
        let found = polynomials(&[50, 50], 4);
        let z = components(&found, &[50, 50], &[2, 8]);
        assert_eq!(z.len(), 1);
        assert!((z[0] - 0.6 * (1000.0_f64 / 110.0).sqrt()).abs() < 1e-12);
        assert_eq!(polynomials(&[50, 0], 4).len(), 0);
        assert_eq!(polynomials(&[0], 4).len(), 0);
    }
}
