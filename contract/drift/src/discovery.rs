//! Many tests at once: Benjamini and Hochberg's rate of false discoveries.

/// Which of the chances are discoveries, so that on average at most `rate` of all discoveries are false.
///
/// The k smallest are, for the largest k whose k-th smallest is at most k / n times the rate.
pub fn discovered(chances: &[f64], rate: f64) -> Vec<bool> {
    let mut sorted: Vec<f64> = chances.iter().copied().filter(|p| !p.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    let n = chances.len() as f64;
    let step = |at: usize| rate * (at + 1) as f64 / n;
    let limit = sorted.iter().enumerate().rev().find(|(at, p)| **p <= step(*at)).map(|(_, p)| *p);
    chances.iter().map(|p| limit.is_some_and(|limit| *p <= limit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_step_that_holds_takes_all_below_it() {
        // Steps .0125, .025, .0375, .05: the third holds (.03), so the second (.029) is taken with it.
        assert_eq!(discovered(&[0.03, 0.9, 0.001, 0.029], 0.05), [true, false, true, true]);
        assert_eq!(discovered(&[0.04, 0.9, 0.5, 0.6], 0.05), [false; 4]);
        assert_eq!(discovered(&[0.05, 0.05], 0.05), [true, true]);
        assert_eq!(discovered(&[], 0.05), [false; 0]);
        assert_eq!(discovered(&[f64::NAN, 0.0], 0.05), [false, true]);
    }
}
