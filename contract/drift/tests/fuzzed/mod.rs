//! What must hold for any bytes that claim to be a summary, a baseline or a memory.
//!
//! Called with bounded random bytes by `tests/encoding.rs` and by the targets of `tests/fuzz`.

use petrel_drift::*;

/// A target: its name, bytes to begin with, and the function.
pub(crate) type Target = (&'static str, fn() -> Vec<u8>, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: [Target; 2] = [("summary", begin, any_summary), ("baseline", begin_baseline, any_baseline)];

fn begin() -> Vec<u8> {
    let values: Vec<f32> = (0..300).map(|x| x as f32).collect();
    let baseline = Baseline::measure([("a", &values[..]), ("b", &values[..9])]).expect("good columns");
    let mut window = Window::new(&baseline);
    for x in [1.0, 250.0, 250.0, f32::NAN, 1e4] {
        window.update(&[x, x]).expect("as wide as the baseline");
    }
    window.close().encode()
}

fn begin_baseline() -> Vec<u8> {
    let column = Column::Categories(&[Some("x"), None]);
    let baseline = Baseline::measure_columns([("a", Column::Numbers(&[1.0, 2.0])), ("b", column)]);
    serde_json::to_vec(&baseline.expect("good columns")).expect("plain data")
}

/// What is read says itself again, merges with itself, and is judged only against its own baseline.
pub(crate) fn any_summary(data: &[u8]) {
    let Ok(summary) = Summary::decode(data) else { return };
    assert_eq!(summary.encode(), data, "a summary has one form");
    let mut twice = summary.clone();
    if twice.merge(&summary).is_ok() {
        assert_eq!((twice.rows, twice.windows), (2 * summary.rows, 2 * summary.windows));
        assert_eq!(Summary::decode(&twice.encode()).as_ref(), Ok(&twice), "what was merged is a summary too");
    }
    let other = Baseline::measure([("z", &[1.0][..])]).expect("good columns");
    assert!(judge(&other, &summary, Known::Independent).is_err() || summary.fits(&other).is_ok());
}

/// What is valid can be counted against and judged.
pub(crate) fn any_baseline(data: &[u8]) {
    let Ok(baseline) = serde_json::from_slice::<Baseline>(data) else { return };
    if baseline.validate().is_err() {
        return;
    }
    let mut monitor = Monitor::new(baseline);
    let width = monitor.baseline().features.len();
    for x in [0.0, 1.0, f32::NAN, f32::INFINITY, f32::MAX, f32::MIN, -0.0] {
        for _ in 0..10 {
            monitor.update(&vec![x; width]).expect("as wide as the baseline");
        }
    }
    let closed = monitor.close();
    assert_eq!(closed.summary.fits(monitor.baseline()), Ok(()));
    assert_eq!(Summary::decode(&closed.summary.encode()), Ok(closed.summary));
    for finding in &closed.judgement.features {
        let sound = |p: f64| (0.0..=1.0).contains(&p);
        assert!(sound(finding.p) && sound(finding.p_smooth) && sound(finding.p_chi_squared), "{finding:?}");
        assert!(finding.effect >= 0.0 && !finding.effect.is_nan(), "{finding:?}");
    }
}
