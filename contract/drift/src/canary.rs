//! Canary against control: is a figure of many devices worse with the new release, at whatever moment one looks?
//!
//! Decides the mixture sequential probability ratio test (mSPRT) with a half-normal mixture: evidence that may be looked at
//! after every report, and that passes 1 / alpha by chance with the probability alpha at most over all looks together.
//! The unit is the device, not the request: devices differ from each other, and a thousand requests of one bad device
//! are one piece of evidence. Does not know what is measured, nor what follows from it.
//!
//! Source: Johari, Koomen, Pekelis, Walsh, "Always Valid Inference", Operations Research 70 (2022), with the normal
//! mixture cut at zero, since only what is worse counts.

use crate::special::{beta_sf, ln_gamma, normal_sf};

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

    /// The same with the sign turned: a figure that shrank is one that grew.
    pub fn reversed(&self) -> Self {
        Self { mean: -self.mean, ..*self }
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
/// chance would else be certain. Or it is that of each side by itself, where that is greater: canaries that were asked a few
/// times differ more than a control that was asked all day.
pub fn grew(canary: &Devices, control: &Devices, allowed: f64, matters: f64) -> f64 {
    if canary.count < 2 || control.count < 2 {
        return 1.0;
    }
    let all = canary.together(control).variance();
    let (n, m) = (canary.count as f64, control.count as f64);
    let variance = (all * (1.0 / n + 1.0 / m)).max(canary.variance() / n + control.variance() / m);
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

/// Evidence that a figure of devices is above what it may be. `matters` is the excess that one wants to see soon.
pub fn grew_above(devices: &Devices, most: f64, matters: f64) -> f64 {
    if devices.count < 2 {
        return 1.0;
    }
    let apart = devices.mean - most;
    // As it is when it is about what it may be.
    let variance = devices.variance() + apart * apart / devices.count as f64;
    evidence(apart, variance / devices.count as f64, matters)
}

/// Evidence that the share of `hits` among `all` is greater in `canary` than in `control`, where each one counts for itself:
/// for two or three devices, of which nobody knows how they differ. `matters` is the difference that one wants to see soon.
pub fn grew_share(canary: (u64, u64), control: (u64, u64), matters: f64) -> f64 {
    let ((hits, all), (before, of)) = (canary, control);
    if all == 0 || of == 0 {
        return 1.0;
    }
    let (n, m) = (all as f64, of as f64);
    // With one hit and one miss more: what never happened may happen.
    let share = (hits as f64 + before as f64 + 1.0) / (n + m + 2.0);
    let variance = share * (1.0 - share) * (1.0 / n + 1.0 / m);
    evidence(hits as f64 / n - before as f64 / m, variance, matters)
}

/// Evidence that a share is above `most`, when `hits` of `all` were hit: a mixture of binomial likelihoods of greater shares
/// against the one of `most`. Half of it is over all of them, alike, for what fails everywhere; half over those up to ten
/// times `most`, so that a few hits more than there may be are seen.
pub fn exceeds_share(hits: u64, all: u64, most: f64) -> f64 {
    if all == 0 || hits > all || most >= 1.0 {
        return 1.0;
    }
    if most <= 0.0 {
        return if hits > 0 { f64::INFINITY } else { 1.0 };
    }
    let (hit, missed) = (hits as f64, (all - hits) as f64);
    let beta = ln_gamma(hit + 1.0) + ln_gamma(missed + 1.0) - ln_gamma(all as f64 + 2.0);
    let likelihood = hit * most.ln() + missed * (-most).ln_1p();
    let above = |share: f64| if share < 1.0 { beta_sf(share, hit + 1.0, missed + 1.0) } else { 0.0 };
    let upto = |share: f64| (beta - likelihood + (above(most) - above(share)).max(0.0).ln()).exp() / (share - most);
    (upto(1.0) + upto((10.0 * most).min(1.0))) / 2.0
}

/// The likelihood ratio of a difference against none, over a half-normal mixture of differences above none.
fn evidence(difference: f64, variance: f64, scale: f64) -> f64 {
    if variance <= 0.0 || scale <= 0.0 {
        return 1.0;
    }
    let (both, tau) = (variance + scale * scale, scale * scale);
    let exponent = tau * difference * difference / (2.0 * variance * both);
    let above = normal_sf(-difference * scale / (variance * both).sqrt());
    // Far below nothing it is next to nothing, and no number holds its parts.
    if above <= 0.0 { 0.0 } else { 2.0 * (variance / both).sqrt() * (exponent + above.ln()).exp() }
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
    fn a_share_above_its_limit_is_seen_and_one_below_seldom() {
        // By hand: the integrals of p / .02 from .02 to 1 over .98, and from .02 to .2 over .18.
        let upto = |share: f64| (share * share - 0.02 * 0.02) / 2.0 / 0.02 / (share - 0.02);
        let one = (upto(1.0) + upto(0.2)) / 2.0;
        assert!((exceeds_share(1, 1, 0.02) / one - 1.0).abs() < 1e-9, "{one}");
        let above = |alpha: f64, share: f64, seed: u64| {
            let mut chance = fastrand::Rng::with_seed(seed);
            let mut hits = 0;
            (1..=2_000).any(|all| {
                hits += u64::from(chance.f64() < share);
                exceeds_share(hits, all, 0.02) >= 1.0 / alpha
            })
        };
        let alarms = (0..200).filter(|seed| above(0.05, 0.02, *seed)).count();
        assert!(alarms <= 10, "{alarms} of 200 where 10 are allowed");
        assert!((0..50).all(|seed| above(0.01, 0.06, seed)));
        assert_eq!((exceeds_share(0, 0, 0.5), exceeds_share(0, 9, 0.0)), (1.0, 1.0));
        assert!(exceeds_share(1, 9, 0.0).is_infinite());
        assert!(exceeds_share(0, 1 << 40, 0.02) < 1e-6 && exceeds_share(1 << 40, 1 << 40, 0.02) > 1e6);
    }

    #[test]
    fn canaries_that_were_asked_a_few_times_beside_a_control_that_was_asked_all_day() {
        let alarms = (0..200).filter(|seed| {
            let mut chance = fastrand::Rng::with_seed(*seed);
            let mut rate =
                |asked: u32| f64::from((0..asked).filter(|_| chance.f64() < 0.01).count() as u32) / f64::from(asked);
            let control = Devices::of((0..1_000).map(|_| rate(1_000)).collect::<Vec<_>>());
            let canary = Devices::of((0..30).map(|_| rate(1)).collect::<Vec<_>>());
            grew(&canary, &control, 0.0, 0.01) >= 1.0 / CANARY_ALPHA
        });
        assert_eq!(alarms.count(), 0, "of 200");
        let (better, worse) = ((0, 1_000_000), (500_000, 1_000_000));
        assert_eq!(grew_share(better, worse, 0.01), 0.0, "what is far better is a number too");
        assert!(grew_share(worse, better, 0.01) > 1e6);
    }

    #[test]
    fn requests_of_two_devices_count_for_themselves() {
        assert!(grew_share((60, 1_000), (10, 1_000), 0.01) > 1e4);
        assert!(grew_share((10, 1_000), (10, 1_000), 0.01) < 1.0);
        assert!(grew_share((10, 1_000), (60, 1_000), 0.01) < 1.0, "what is better is no evidence");
        assert_eq!(grew_share((1, 1), (0, 0), 0.01), 1.0);
    }

    #[test]
    fn a_figure_above_its_limit_is_seen_by_the_spread_of_devices() {
        let spread = |middle: f64| Devices::of((0..40).map(|n| middle * (0.8 + 0.01 * f64::from(n))));
        assert!(grew_above(&spread(0.10), 0.05, 0.05) > 1e6);
        assert!(grew_above(&spread(0.04), 0.05, 0.05) < 1.0);
        assert_eq!(grew_above(&Devices::of([0.9]), 0.05, 0.05), 1.0, "one device has no spread");
        assert_eq!(
            grew(&spread(0.1).reversed(), &spread(0.1).reversed(), 0.0, 0.1),
            grew(&spread(0.1), &spread(0.1), 0.0, 0.1)
        );
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
