//! The special functions that tests need: tails of chi-squared, F and the normal distribution.
//!
//! Decides how they are computed, to 1e-9 of the value or better wherever the value is above 1e-300. Written
//! here because the tails must agree with scipy's and nothing else of a statistics library is wanted on a device.
//! Knows no feature and no window. Sources: DLMF (<https://dlmf.nist.gov>) by the number of the formula.

use std::f64::consts::{PI, SQRT_2};

/// Below this, a continued fraction's denominator is taken for zero (Lentz's method).
const TINY: f64 = 1e-300;
const EPSILON: f64 = 1e-16;
const MAX_STEPS: usize = 100_000;

/// ln Γ(x) for x > 0: Stirling's series (DLMF 5.11.1), reached by the recurrence (5.5.1).
pub(crate) fn ln_gamma(x: f64) -> f64 {
    let (mut z, mut product) = (x, 1.0);
    while z < 12.0 {
        product *= z;
        z += 1.0;
    }
    let y = 1.0 / (z * z);
    let series = 1.0 / 12.0 - y * (1.0 / 360.0 - y * (1.0 / 1260.0 - y * (1.0 / 1680.0 - y * (1.0 / 1188.0))));
    (z - 0.5) * z.ln() - z + 0.5 * (2.0 * PI).ln() + series / z - product.ln()
}

/// Q(a, x) = Γ(a, x) / Γ(a): the series 8.7.1 near zero, the continued fraction 8.9.2 beyond.
fn gamma_q(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let front = a * x.ln() - x - ln_gamma(a);
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0 / a, 1.0 / a);
        for n in 1..MAX_STEPS {
            term *= x / (a + n as f64);
            sum += term;
            if term < sum * EPSILON {
                break;
            }
        }
        return (1.0 - sum * front.exp()).max(0.0);
    }
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / TINY, 1.0 / b);
    let mut fraction = d;
    for n in 1..MAX_STEPS {
        let step = -(n as f64) * (n as f64 - a);
        b += 2.0;
        d = 1.0 / away_from_zero(step * d + b);
        c = away_from_zero(b + step / c);
        let delta = d * c;
        fraction *= delta;
        if (delta - 1.0).abs() < EPSILON * 4.0 {
            break;
        }
    }
    fraction * front.exp()
}

fn away_from_zero(x: f64) -> f64 {
    if x.abs() < TINY { TINY } else { x }
}

/// I_x(a, b), the regularised incomplete beta function: the continued fraction DLMF 8.17.22.
fn beta_i(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_i(b, a, 1.0 - x);
    }
    let front = a * x.ln() + b * (-x).ln_1p() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b);
    let (mut c, mut d) = (1.0, 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for n in 1..MAX_STEPS {
        let m = n as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut delta = 1.0;
        for step in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + step * d);
            c = away_from_zero(1.0 + step / c);
            delta = d * c;
            fraction *= delta;
        }
        if (delta - 1.0).abs() < EPSILON * 4.0 {
            break;
        }
    }
    fraction * front.exp() / a
}

/// The chance that chi-squared with `df` degrees is above `x`.
pub(crate) fn chi2_sf(x: f64, df: f64) -> f64 {
    gamma_q(df / 2.0, x / 2.0)
}

/// The chance that F with `d1` and `d2` degrees is above `x`.
pub(crate) fn f_sf(x: f64, d1: f64, d2: f64) -> f64 {
    if x <= 0.0 { 1.0 } else { beta_i(d2 / 2.0, d1 / 2.0, d2 / (d2 + d1 * x)) }
}

/// The chance that a standard normal value is above `x`.
pub(crate) fn normal_sf(x: f64) -> f64 {
    let upper = 0.5 * gamma_q(0.5, x * x / 2.0);
    if x < 0.0 { 1.0 - upper } else { upper }
}

/// The value that a standard normal value is below with the chance `p`, 0 < p < 1.
///
/// Abramowitz and Stegun 26.2.23, then Newton's steps.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    let t = (-2.0 * p.ln()).sqrt();
    let above = (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
    let mut x = t - above;
    for _ in 0..4 {
        let density = (-x * x / 2.0).exp() / (SQRT_2 * PI.sqrt());
        x += (normal_sf(x) - p) / density;
    }
    -x
}

/// The value that chi-squared is above with the chance `p`.
pub(crate) fn chi2_isf(p: f64, df: f64) -> f64 {
    isf(|x| chi2_sf(x, df), p)
}

/// The value that F is above with the chance `p`.
pub(crate) fn f_isf(p: f64, d1: f64, d2: f64) -> f64 {
    isf(|x| f_sf(x, d1, d2), p)
}

/// Where a falling function meets `p`.
fn isf(sf: impl Fn(f64) -> f64, p: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while sf(high) > p && high < 1e12 {
        (low, high) = (high, high * 2.0);
    }
    // 52 halvings are all that a float holds; 40 are more than any figure here needs.
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if sf(middle) > p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}
