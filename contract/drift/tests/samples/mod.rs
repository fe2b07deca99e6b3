//! Baselines and windows for tests: one of everything that a summary can hold.
#![allow(dead_code, reason = "not every test uses all of it")]

use petrel_drift::*;

/// Four features: numbers, categories, one value, nothing.
pub(crate) fn baseline() -> Baseline {
    let numbers: Vec<f32> = (0..200).map(|x| x as f32 / 4.0).collect();
    let colours = ["red", "red", "green", "red", "blue"].map(Some);
    Baseline::measure_columns([
        ("temperature", Column::Numbers(&numbers)),
        ("colour", Column::Categories(&colours)),
        ("mode", Column::Numbers(&[3.0; 10])),
        ("spare", Column::Numbers(&[f32::NAN; 10])),
    ])
    .expect("good columns")
}

/// A window of a few rows with every kind of value.
pub(crate) fn summary() -> Summary {
    let mut window = Window::new(&baseline());
    let rows: [[f32; 4]; 6] = [
        [12.5, 0.0, 3.0, f32::NAN],
        [12.5, 7.0, 3.0, f32::NAN],
        [-0.0, 1.0, 4.0, 1.0],
        [f32::INFINITY, f32::NAN, 3.0, f32::NAN],
        [500.0, 2.0, 3.0, f32::NAN],
        [f32::NAN, 0.0, f32::NEG_INFINITY, f32::NAN],
    ];
    rows.iter().for_each(|row| window.update(row).expect("as wide as the baseline"));
    window.close()
}

/// Rows of chance; with holes, repeats and values of every size.
pub(crate) fn row(chance: &mut fastrand::Rng, width: usize) -> Vec<f32> {
    let value = |chance: &mut fastrand::Rng| match chance.u8(0..12) {
        0 => f32::NAN,
        1 => f32::INFINITY,
        2 => f32::NEG_INFINITY,
        3 => -0.0,
        4 => f32::from_bits(chance.u32(..)),
        5 => 3.0,
        6 => chance.f32() * 1e6,
        _ => chance.f32() * 50.0,
    };
    (0..width).map(|_| value(chance)).collect()
}

/// A window of so many of them.
pub(crate) fn window(baseline: &Baseline, chance: &mut fastrand::Rng, rows: usize) -> Summary {
    let mut window = Window::new(baseline);
    for _ in 0..rows {
        window.update(&row(chance, baseline.features.len())).expect("as wide as the baseline");
    }
    window.close()
}
