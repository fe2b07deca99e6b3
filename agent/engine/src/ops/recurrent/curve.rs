//! The two curves of a gate, by whole vectors; both within 2e-7 of the true value.

use fearless_simd::{Simd, f32x16, i32x16, prelude::*};

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(simd: S, x: f32x16<S>) -> f32x16<S> {
    let one = f32x16::splat(simd, 1.0);
    one / (exp(simd, -x) + one)
}

/// `1 - 2 / (1 + exp(2 x))`.
#[inline(always)]
pub(super) fn tanh<S: Simd>(simd: S, x: f32x16<S>) -> f32x16<S> {
    let one = f32x16::splat(simd, 1.0);
    one - f32x16::splat(simd, 2.0) / (exp(simd, x + x) + one)
}

/// `exp(x)` for `x` held within ±88, where the result is a normal number: the
/// power of two nearest below or above, times the Taylor series of what is left.
#[inline(always)]
fn exp<S: Simd>(simd: S, x: f32x16<S>) -> f32x16<S> {
    // What is not a number stays so: a comparison with it gives the second operand.
    let x = f32x16::splat(simd, -88.0).max(f32x16::splat(simd, 88.0).min(x));
    let power = x * std::f32::consts::LOG2_E;
    let whole = power.round_ties_even();
    let rest = (power - whole) * std::f32::consts::LN_2;
    let mut series = f32x16::splat(simd, 1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = series.mul_add(rest, coefficient);
    }
    let exponent: i32x16<S> = whole.to_int();
    let scale: f32x16<S> = ((exponent + 127) << 23u32).bitcast();
    series * scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use fearless_simd::{Level, dispatch};

    #[test]
    fn both_curves_are_exact_to_single_precision() {
        let mut worst = 0.0f64;
        for step in -3000..3000 {
            let xs: [f32; 16] = std::array::from_fn(|lane| (step * 16 + lane as i32) as f32 * 0.0005);
            let (sigmoids, tanhs) = both(xs);
            for (lane, x) in xs.into_iter().enumerate() {
                let x = f64::from(x);
                worst = worst.max((f64::from(sigmoids[lane]) - 1.0 / (1.0 + (-x).exp())).abs());
                worst = worst.max((f64::from(tanhs[lane]) - x.tanh()).abs());
            }
        }
        assert!(worst < 2e-7, "{worst}");
    }

    #[test]
    fn the_ends_are_the_limits_and_no_number_stays_none() {
        let mut xs = [0.0; 16];
        xs[..6].copy_from_slice(&[f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, f32::NAN, -200.0]);
        let (sigmoids, tanhs) = both(xs);
        assert!(sigmoids[4].is_nan() && tanhs[4].is_nan());
        for (lane, sigmoid, tanh) in [(0, 1.0, 1.0), (1, 0.0, -1.0), (2, 1.0, 1.0), (3, 0.0, -1.0), (5, 0.0, -1.0)] {
            assert!((sigmoids[lane] - sigmoid).abs() < 1e-30 && tanhs[lane] == tanh, "{lane}: {sigmoids:?} {tanhs:?}");
        }
    }

    fn both(xs: [f32; 16]) -> ([f32; 16], [f32; 16]) {
        dispatch!(Level::new(), simd => {
            let xs = f32x16::load_array(simd, xs);
            (sigmoid(simd, xs).to_array(), tanh(simd, xs).to_array())
        })
    }
}
