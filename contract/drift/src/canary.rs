//! Canary against control: is a figure of many devices worse with the new release, at whatever moment one looks?
//!
//! Decides the mixture sequential probability ratio test (mSPRT) with a half-normal mixture: evidence that may be looked at
//! after every report, and that passes 1 / alpha by chance with the probability alpha at most over all looks together.
//! The unit is the device, not the request: devices differ from each other, and a thousand requests of one bad device
//! are one piece of evidence. Does not know what is measured, nor what follows from it.
//!
//! Source: Johari, Koomen, Pekelis, Walsh, "Always Valid Inference", Operations Research 70 (2022), with the normal
//! mixture cut at zero, since only what is worse counts.

use crate::special::normal_sf;

/// The chance of a false alarm over all looks.
pub const CANARY_ALPHA: f64 = 0.01;
/// Devices below which every rule is weak: a plan should say so.
pub const ADVISED_CANARIES: u64 = 30;

/// One figure over many devices: each device counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Devices {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Devices {
    /// The figures of devices: a rate of errors, a share of a class, a logarithm of a ratio.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        figures.into_iter().fold(Self::default(), |devices, figure| devices.with(figure))
    }

    /// One device more.
    fn with(self, figure: f64) -> Self {
        let count = self.count + 1;
        let apart = figure - self.mean;
        let mean = self.mean + apart / count as f64;
        Self { count, mean, squares: self.squares + apart * (figure - mean) }
    }

    /// How many devices.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Between the devices.
    pub fn variance(&self) -> f64 {
        if self.count < 2 { 0.0 } else { self.squares / (self.count - 1) as f64 }
    }

    /// Two groups as one (Chan's formula).
    fn together(&self, other: &Self) -> Self {
        let count = self.count + other.count;
        let (n, m) = (self.count as f64, other.count as f64);
        let apart = other.mean - self.mean;
        let mean = self.mean + apart * m / (n + m).max(1.0);
        Self { count, mean, squares: self.squares + other.squares + apart * apart * n * m / (n + m).max(1.0) }
    }
}

/// Evidence that a figure of the canaries is greater than that of the control by more than `allowed`. `matters` is the
/// difference that one wants to see soon. Divide [`CANARY_ALPHA`] by the number of figures that are looked at.
///
/// The variance is that of all devices together, as it is when nothing differs: a handful of canaries that agree by
/// chance would else be certain.
pub fn grew(canary: &Devices, control: &Devices, allowed: f64, matters: f64) -> f64 {
    if canary.count < 2 || control.count < 2 {
        return 1.0;
    }
    let all = canary.together(control).variance();
    let variance = all * (1.0 / canary.count as f64 + 1.0 / control.count as f64);
    evidence(canary.mean - control.mean - allowed, variance, matters)
}

/// Evidence that devices are slower than they were themselves: the figures are logarithms of each device's ratio, now over
/// before. `ratio` is the greatest that is allowed, `matters` one that one wants to see soon.
pub fn grew_from_before(ratios: &Devices, ratio: f64, matters: f64) -> f64 {
    if ratios.count < 2 || ratio <= 0.0 || matters <= ratio {
        return 1.0;
    }
    let apart = ratios.mean - ratio.ln();
    // As it is when nothing differs: about what is allowed.
    let variance = ratios.variance() + apart * apart / ratios.count as f64;
    evidence(apart, variance / ratios.count as f64, (matters / ratio).ln())
}

/// The likelihood ratio of a difference against none, over a half-normal mixture of differences above none.
fn evidence(difference: f64, variance: f64, scale: f64) -> f64 {
    if variance <= 0.0 || scale <= 0.0 {
        return 1.0;
    }
    let (both, tau) = (variance + scale * scale, scale * scale);
    let exponent = tau * difference * difference / (2.0 * variance * both);
    let above = normal_sf(-difference * scale / (variance * both).sqrt());
    2.0 * (variance / both).sqrt() * exponent.exp() * above
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOURS: usize = 48;
    const REQUESTS: u32 = 30;

    /// Devices with rates about .01, which differ from each other; each hour every one is asked some times. Says after
    /// how many hours the evidence is enough.
    fn aborted(seed: u64, canaries: usize, controls: usize, worse: f64) -> Option<usize> {
        let mut chance = fastrand::Rng::with_seed(seed);
        let rate = |chance: &mut fastrand::Rng| 0.01 * (0.5 + chance.f64());
        let rates: Vec<f64> =
            (0..canaries + controls).map(|at| rate(&mut chance) * if at < canaries { worse } else { 1.0 }).collect();
        let mut errors = vec![0u32; rates.len()];
        (1..=HOURS).find(|hour| {
            for (errors, rate) in errors.iter_mut().zip(&rates) {
                *errors += (0..REQUESTS).filter(|_| chance.f64() < *rate).count() as u32;
            }
            let asked = f64::from(REQUESTS) * *hour as f64;
            let figures =
                |range: std::ops::Range<usize>| Devices::of(errors[range].iter().map(|e| f64::from(*e) / asked));
            let evidence = grew(&figures(0..canaries), &figures(canaries..rates.len()), 0.0, 0.01);
            evidence >= 1.0 / CANARY_ALPHA
        })
    }

    #[test]
    fn good_releases_are_seldom_aborted_whenever_one_looks() {
        let aborts = (0..200).filter(|seed| aborted(*seed, 100, 400, 1.0).is_some()).count();
        assert!(aborts <= 4, "{aborts} of 200");
    }

    #[test]
    fn three_times_the_errors_are_seen_within_hours() {
        let hours: Vec<usize> = (0..50).map(|seed| aborted(1_000 + seed, 100, 400, 3.0).unwrap_or(HOURS)).collect();
        assert!(hours.iter().all(|hours| *hours <= 6), "{hours:?}");
    }

    #[test]
    fn a_device_beside_itself_tells_sooner_than_beside_others() {
        let mut chance = fastrand::Rng::with_seed(1);
        // Devices are fast and slow by a factor of five; each varies by a twentieth from day to day.
        let before: Vec<f64> = (0..40).map(|_| 0.01 * 5f64.powf(chance.f64())).collect();
        let now: Vec<f64> = before.iter().map(|x| x * 1.2 * (0.95 + 0.1 * chance.f64())).collect();
        let others: Vec<f64> = (0..40).map(|_| 0.01 * 5f64.powf(chance.f64())).collect();
        let paired = Devices::of(now.iter().zip(&before).map(|(now, before)| (now / before).ln()));
        let logarithms = |of: &[f64]| Devices::of(of.iter().map(|x| x.ln()));
        assert!(grew_from_before(&paired, 1.0, 1.2) > 1e6);
        assert!(grew_from_before(&paired, 1.3, 1.5) < 1.0, "so much is allowed");
        assert!(grew(&logarithms(&now), &logarithms(&others), 0.0, 0.2) < 100.0);
    }

    #[test]
    fn nothing_is_no_evidence() {
        let (none, same) = (Devices::default(), Devices::of([0.0; 50]));
        assert_eq!((grew(&none, &same, 0.0, 0.01), grew(&same, &same, 0.0, 0.01)), (1.0, 1.0));
        assert_eq!(grew_from_before(&Devices::of([0.5]), 1.0, 1.2), 1.0);
        let (a, b) = (Devices::of([1.0, 2.0, 6.0]), Devices::of([4.0, 7.0]));
        let all = Devices::of([1.0, 2.0, 6.0, 4.0, 7.0]);
        let together = a.together(&b);
        assert!((together.mean() - all.mean()).abs() < 1e-12 && (together.variance() - all.variance()).abs() < 1e-12);
    }
}
