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

/// The chance that a share drawn from Beta(a, b) is above `x`.
pub(crate) fn beta_sf(x: f64, a: f64, b: f64) -> f64 {
    beta_i(b, a, 1.0 - x)
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

#[cfg(test)]
#[allow(clippy::excessive_precision, clippy::unreadable_literal, reason = "as scipy writes them")]
mod tests {
    use super::*;

    /// Equal to `within` of the value, or to 1e-14 where it is nothing.
    fn close(what: impl std::fmt::Debug, ours: f64, theirs: f64, within: f64) {
        assert!(
            (ours - theirs).abs() <= (within * theirs.abs()).max(1e-14 * f64::from(u8::from(theirs == 0.0))),
            "{what:?}: {ours:e}, scipy {theirs:e}"
        );
    }

    /// scipy 1.17: chi2.sf.
    const CHI2: [(f64, f64, f64); 11] = [
        (0.0, 4.0, 1.0),
        (0.1, 1.0, 0.7518296340458492),
        (3.84, 1.0, 0.05004352124870519),
        (9.49, 4.0, 0.049953131223294894),
        (0.001, 19.0, 1.0),
        (20.0, 19.0, 0.394578182086001),
        (120.5, 19.0, 8.943500546581026e-17),
        (700.0, 4.0, 3.4852862290889247e-150),
        (1300.0, 19.0, 3.5273215074224615e-264),
        (35.0, 32.0, 0.3275423914107557),
        (2.5, 3.0, 0.4752910833430205),
    ];
    /// f.sf.
    const F: [(f64, f64, f64, f64); 10] = [
        (0.0, 4.0, 99.0, 1.0),
        (0.5, 4.0, 99.0, 0.7357711454610161),
        (2.46, 4.0, 99.0, 0.05027003318314121),
        (15.0, 4.0, 99.0, 1.284673949246478e-09),
        (40.0, 1.0, 99.0, 7.381480781661921e-09),
        (9.0, 4.0, 8.7, 0.003644242553401054),
        (30.0, 19.0, 24.3, 2.042845261918208e-12),
        (1.0, 19.0, 19.0, 0.5000000000000001),
        (5.0, 1.0, 1.0, 0.26772047280123),
        (200.0, 4.0, 99.0, 1.6846977654039835e-46),
    ];
    /// norm.sf.
    const NORMAL: [(f64, f64); 8] = [
        (-8.0, 0.9999999999999993),
        (-1.0, 0.8413447460685429),
        (0.0, 0.5),
        (0.5, 0.3085375387259869),
        (1.96, 0.024997895148220435),
        (5.0, 2.866515718791933e-07),
        (12.0, 1.776482112077653e-33),
        (30.0, 4.906713927147908e-198),
    ];
    /// norm.ppf.
    const QUANTILE: [(f64, f64); 8] = [
        (1e-12, -7.034483825301131),
        (0.0001, -3.7190164854556804),
        (0.025, -1.9599639845400545),
        (0.3, -0.5244005127080409),
        (0.5, 0.0),
        (0.84, 0.994457883209753),
        (0.999, 3.090232306167813),
        (0.999999999, 5.997807019601637),
    ];
    /// gammaln.
    const GAMMA: [(f64, f64); 10] = [
        (0.001, 6.907178885383853),
        (0.5, 0.5723649429247),
        (1.0, 0.0),
        (1.5, -0.12078223763524526),
        (2.0, 0.0),
        (7.3, 7.147892523022249),
        (12.0, 17.502307845873887),
        (100.0, 359.1342053695754),
        (10000.0, 82099.71749644238),
        (10000000.0, 151180949.36947393),
    ];
    /// chi2.isf, and f.isf with 99 degrees.
    const ISF: [(f64, f64, f64, f64); 4] = [
        (0.01, 1.0, 6.634896601021217, 6.898005626034512),
        (0.01, 4.0, 13.276704135987625, 3.514705187422565),
        (0.01, 19.0, 36.19086912927005, 2.0942384731925583),
        (0.5, 2.0, 1.386294361119891, 0.6980229732562916),
    ];

    #[test]
    fn tails_are_those_of_scipy() {
        for (x, df, sf) in CHI2 {
            close((x, df), chi2_sf(x, df), sf, 1e-10);
        }
        for (x, d1, d2, sf) in F {
            close((x, d1, d2), f_sf(x, d1, d2), sf, 1e-10);
        }
        for (x, sf) in NORMAL {
            close(x, normal_sf(x), sf, 1e-10);
        }
        for (x, ln) in GAMMA {
            close(x, ln_gamma(x), ln, 1e-13);
        }
    }

    #[test]
    fn quantiles_are_those_of_scipy() {
        for (p, x) in QUANTILE {
            close(p, normal_quantile(p), x, 1e-7);
        }
        for (p, df, chi2, f) in ISF {
            close((p, df), chi2_isf(p, df), chi2, 1e-9);
            close((p, df), f_isf(p, df, 99.0), f, 1e-9);
        }
    }
}
