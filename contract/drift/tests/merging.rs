//! Merging: bit by bit the same in any order and any grouping, and the same as one long window.

mod samples;

use petrel_drift::*;

#[test]
fn any_order_and_any_grouping_is_the_same_summary() {
    let mut chance = fastrand::Rng::with_seed(5);
    for _ in 0..200 {
        let baseline = samples::baseline();
        let parts: Vec<Summary> = (0..chance.usize(2..12))
            .map(|_| {
                let rows = chance.usize(0..60);
                samples::window(&baseline, &mut chance, rows)
            })
            .collect();
        let mut expected = Summary::empty(&baseline);
        parts.iter().for_each(|part| expected.merge(part).unwrap());
        let mut heap = parts;
        while heap.len() > 1 {
            let other = heap.swap_remove(chance.usize(0..heap.len()));
            let into = chance.usize(0..heap.len());
            heap[into].merge(&other).unwrap();
        }
        assert_eq!(heap[0], expected);
        assert_eq!(heap[0].encode(), expected.encode());
        assert_eq!(Summary::decode(&expected.encode()), Ok(expected));
    }
}

#[test]
fn parts_are_the_whole_but_for_runs() {
    let baseline = samples::baseline();
    let mut chance = fastrand::Rng::with_seed(6);
    let rows: Vec<Vec<f32>> = (0..500).map(|_| samples::row(&mut chance, 4)).collect();
    let mut window = Window::new(&baseline);
    rows.iter().for_each(|row| window.update(row).unwrap());
    let whole = window.close();
    let mut merged = Summary::empty(&baseline);
    for part in rows.chunks(37) {
        part.iter().for_each(|row| window.update(row).unwrap());
        merged.merge(&window.close()).unwrap();
    }
    assert_eq!(merged.windows, 14);
    merged.windows = 1;
    for (merged, whole) in merged.features.iter_mut().zip(&whole.features) {
        // A run that a window's end cuts is two.
        assert!(merged.longest_run <= whole.longest_run);
        merged.longest_run = whole.longest_run;
    }
    assert_eq!(merged, whole);
}

#[test]
fn what_would_overflow_is_refused_and_nothing_is_added() {
    let mut summary = samples::summary();
    let mut doubled = 0;
    let refused = loop {
        let other = summary.clone();
        match summary.merge(&other) {
            Ok(()) => doubled += 1,
            Err(error) => {
                assert_eq!(summary, other);
                break error;
            }
        }
    };
    assert_eq!((refused, doubled), (SummaryError::TooManyRows, 33));
    assert_eq!(summary.rows, 6 << 33);
    assert_eq!(Summary::decode(&summary.encode()), Ok(summary));
}

#[test]
fn other_baselines_do_not_merge() {
    let other = Baseline::measure([("x", &[1.0, 2.0][..])]).unwrap();
    let mut summary = samples::summary();
    assert_eq!(summary.merge(&Summary::empty(&other)), Err(SummaryError::OtherBaseline));
    assert_eq!(summary, samples::summary());
}
