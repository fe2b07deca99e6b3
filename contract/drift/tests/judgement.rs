//! What is said of a window: levels, causes, doubts, and what is learned and remembered.

use petrel_drift::*;

struct Stream(fastrand::Rng);

impl Stream {
    fn normal(&mut self) -> f32 {
        let (u, v) = (1.0 - self.0.f64(), self.0.f64());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    /// Five features of 20 degrees, give or take 5.
    fn row(&mut self) -> [f32; 5] {
        std::array::from_fn(|_| 20.0 + 5.0 * self.normal())
    }
}

fn baseline() -> Baseline {
    let mut stream = Stream(fastrand::Rng::with_seed(1));
    let rows: Vec<[f32; 5]> = (0..5_000).map(|_| stream.row()).collect();
    let columns: Vec<Vec<f32>> = (0..5).map(|at| rows.iter().map(|row| row[at]).collect()).collect();
    let names = ["a", "b", "c", "d", "e"];
    Baseline::measure(names.into_iter().zip(columns.iter().map(Vec::as_slice))).unwrap()
}

/// A window of rows whose first feature was changed.
fn judged(rows: usize, mut change: impl FnMut(usize, f32) -> f32) -> Judgement {
    let (baseline, mut stream) = (baseline(), Stream(fastrand::Rng::with_seed(2)));
    let mut window = Window::new(&baseline);
    for at in 0..rows {
        let mut row = stream.row();
        row[0] = change(at, row[0]);
        window.update(&row).unwrap();
    }
    judge(&baseline, &window.close(), Known::Independent).unwrap()
}

fn alarmed(judgement: &Judgement) -> Vec<&str> {
    let loud = judgement.features.iter().filter(|finding| finding.level > Level::Quiet);
    loud.map(|finding| finding.name.as_str()).collect()
}

#[test]
fn nothing_has_changed() {
    for rows in [50, 200, 1_000, 5_000] {
        let judgement = judged(rows, |_, x| x);
        assert_eq!((judgement.level, alarmed(&judgement), judgement.doubts.len()), (Level::Quiet, vec![], 0), "{rows}");
        for finding in &judgement.features {
            let least = finding.p_smooth.min(finding.p_chi_squared).min(finding.p_unusable);
            assert_eq!((finding.p, finding.cause), ((3.0 * least).min(1.0), None), "{finding:?}");
        }
    }
}

#[test]
fn each_change_has_its_name() {
    type Change = fn(usize, f32) -> f32;
    type Named = fn(Cause) -> bool;
    let changes: [(&str, Change, Named); 12] = [
        ("warmer", |_, x| x + 5.0, |cause| cause == Cause::Population),
        ("wider", |_, x| 20.0 + 2.0 * (x - 20.0), |cause| cause == Cause::Population),
        ("two kinds", |at, x| if at % 2 == 0 { x + 9.0 } else { x - 9.0 }, |cause| cause == Cause::Population),
        ("gone", |_, _| f32::NAN, |cause| cause == Cause::Missing { share: 1.0 }),
        (
            "seldom gone",
            |at, x| if at % 20 == 0 { f32::NAN } else { x },
            |cause| cause == Cause::Missing { share: 0.05 },
        ),
        (
            "infinite",
            |at, x| if at % 20 == 0 { f32::INFINITY } else { x },
            |cause| cause == Cause::Missing { share: 0.05 },
        ),
        ("stuck", |_, _| 21.25, |cause| cause == Cause::Stuck { rows: 400 }),
        ("stuck since noon", |at, x| if at < 150 { x } else { 21.25 }, |cause| cause == Cause::Stuck { rows: 250 }),
        ("saturated", |_, x| x.min(22.5), |cause| matches!(cause, Cause::Saturated { at: 22.5, share } if share > 0.2)),
        ("Fahrenheit", |_, x| x * 1.8 + 32.0, |cause| cause == Cause::UnitChange { from_to: "Celsius to Fahrenheit" }),
        ("milli", |_, x| x * 1e3, |cause| cause == Cause::UnitChange { from_to: "a factor of 1,000" }),
        ("spikes", |at, x| if at % 40 == 0 { 9_999.0 } else { x }, |cause| cause == Cause::OutOfRange { share: 0.025 }),
    ];
    for (what, change, expected) in changes {
        let judgement = judged(400, change);
        let finding = &judgement.features[0];
        assert_eq!((judgement.level, alarmed(&judgement)), (Level::Page, vec!["a"]), "{what}: {finding:?}");
        assert!(finding.cause.is_some_and(expected), "{what}: {finding:?}");
        assert!(finding.effect > LEAST_EFFECT, "{what}: {finding:?}");
    }
}

#[test]
fn what_surely_differs_but_little_does_not_page() {
    let judgement = judged(5_000, |_, x| x + 0.5);
    let finding = &judgement.features[0];
    assert_eq!(finding.level, Level::Warn, "{finding:?}");
    assert!(finding.p < 1e-3 && finding.effect < LEAST_EFFECT, "{finding:?}");
}

#[test]
fn few_rows_decide_nothing_and_too_many_only_warn() {
    let few = judged(49, |_, _| f32::NAN);
    assert_eq!((few.level, few.doubts.as_slice()), (Level::Quiet, &[Doubt::FewRows][..]));
    assert!(few.features[0].p < 1e-9);
    assert_eq!(judged(50, |_, _| f32::NAN).level, Level::Page);
    let many = judged(5_001, |_, _| f32::NAN);
    assert_eq!((many.level, many.doubts.as_slice()), (Level::Warn, &[Doubt::LargerThanBaseline][..]));
    let nothing = judged(0, |_, x| x);
    assert_eq!((nothing.level, nothing.doubts.as_slice()), (Level::Quiet, &[Doubt::FewRows][..]));
}

#[test]
fn one_value_that_becomes_another_is_out_of_range() {
    let baseline = Baseline::measure([("mode", &[5.0; 1_000][..])]).unwrap();
    for other in [4.0, 6.0, 5.000_001] {
        let mut window = Window::new(&baseline);
        for at in 0..100 {
            window.update(&[if at % 2 == 0 { 5.0 } else { other }]).unwrap();
        }
        let judgement = judge(&baseline, &window.close(), Known::Independent).unwrap();
        let finding = &judgement.features[0];
        assert_eq!(finding.level, Level::Page, "{other}: {finding:?}");
        assert!((finding.p_smooth, finding.p_chi_squared) == (1.0, 1.0) && finding.p_unusable < 1e-9, "{finding:?}");
    }
}

#[test]
fn values_where_there_were_none_are_no_fault_of_the_sensor() {
    let baseline = Baseline::measure([("spare", &[f32::NAN; 1_000][..])]).unwrap();
    let mut window = Window::new(&baseline);
    (0..100).for_each(|_| window.update(&[7.0]).unwrap());
    let judgement = judge(&baseline, &window.close(), Known::Independent).unwrap();
    assert_eq!((judgement.level, judgement.features[0].cause), (Level::Page, Some(Cause::Population)));
}

#[test]
fn a_few_wild_values_are_no_other_unit() {
    let mut stream = Stream(fastrand::Rng::with_seed(9));
    let values: Vec<f32> = (0..5_000).map(|_| stream.normal()).collect();
    let baseline = Baseline::measure([("x", &values[..])]).unwrap();
    let mut window = Window::new(&baseline);
    for at in 0..500 {
        // Mean and deviation are nearly those of a feature in thousandths.
        window.update(&[if at % 50 == 0 { 8_000.0 } else { stream.normal() }]).unwrap();
    }
    let judgement = judge(&baseline, &window.close(), Known::Independent).unwrap();
    assert_eq!(judgement.features[0].cause, Some(Cause::OutOfRange { share: 0.02 }));
}

#[test]
fn canaries_are_held_against_control() {
    let (baseline, mut stream) = (baseline(), Stream(fastrand::Rng::with_seed(8)));
    let mut summer = |rows: usize, first: f32| {
        let mut window = Window::new(&baseline);
        for _ in 0..rows {
            let mut row = stream.row().map(|x| x + 5.0);
            row[0] += first;
            window.update(&row).unwrap();
        }
        window.close()
    };
    let (control, same, worse) = (summer(4_000, 0.0), summer(500, 0.0), summer(500, 5.0));
    let against = |window| judge_against(&baseline, &control, window, Known::Independent).unwrap();
    // It is summer for all of them: only the baseline is of the winter.
    assert_eq!(judge(&baseline, &same, Known::Independent).unwrap().level, Level::Page);
    assert_eq!(against(&same).level, Level::Quiet);
    assert_eq!((against(&worse).level, alarmed(&against(&worse))), (Level::Page, vec!["a"]));
    let stranger = Summary::empty(&Baseline::measure([("x", &[1.0][..])]).unwrap());
    let refused = judge_against(&baseline, &stranger, &same, Known::Independent);
    assert_eq!(refused, Err(SummaryError::OtherBaseline));
}

#[test]
fn categories_drift_too() {
    let colours = |reds: usize| -> Vec<Option<&str>> {
        (0..1_000).map(|at| Some(if at < reds { "red" } else { "blue" })).collect()
    };
    let (before, now, same) = (colours(700), colours(300), colours(690));
    let pair =
        |window| Pair { name: "colour", baseline: Column::Categories(&before), window: Column::Categories(window) };
    assert_eq!(compare(&[pair(&now)]).unwrap().judgement.level, Level::Page);
    assert_eq!(compare(&[pair(&same)]).unwrap().judgement.level, Level::Quiet);
}

/// Windows of 200 rows that remember .9 of the last row, with a shift from some window on.
fn remembered(monitor: &mut Monitor, stream: &mut Stream, state: &mut [f32; 5], shift: f32) -> Closed {
    for _ in 0..200 {
        for state in state.iter_mut() {
            *state = 0.9 * *state + 0.19_f32.sqrt() * stream.normal();
        }
        let row: [f32; 5] = std::array::from_fn(|at| 20.0 + 5.0 * (state[at] + if at == 0 { shift } else { 0.0 }));
        monitor.update(&row).unwrap();
    }
    monitor.close()
}

#[test]
fn a_device_learns_how_its_sensors_vary() {
    let mut monitor = Monitor::new(baseline());
    let (mut stream, mut state) = (Stream(fastrand::Rng::with_seed(3)), [0.0; 5]);
    let mut first = 0;
    for number in 0..LEARNED_WINDOWS {
        let closed = remembered(&mut monitor, &mut stream, &mut state, 0.0);
        let learning = closed.judgement.doubts.contains(&Doubt::Learning);
        assert_eq!(learning, number < LEAST_WINDOWS, "{number}");
        assert!(!learning || closed.judgement.level < Level::Page, "nobody is woken while nothing is known");
        first += usize::from(learning && closed.judgement.level == Level::Warn);
    }
    assert!(first > 10, "rows that depend on each other look like drift until that is known: {first}");
    let quiet =
        (0..100).filter(|_| remembered(&mut monitor, &mut stream, &mut state, 0.0).judgement.level == Level::Quiet);
    assert!(quiet.count() >= 97);
    let seen = (0..20).filter(|_| {
        let closed = remembered(&mut monitor, &mut stream, &mut state, 4.0);
        alarmed(&closed.judgement) == ["a"]
    });
    assert!(seen.count() >= 18, "what is far enough is seen all the same");
}

#[test]
fn gradual_drift_warns_before_a_window_tells() {
    let mut monitor = Monitor::new(baseline());
    let mut stream = Stream(fastrand::Rng::with_seed(4));
    for _ in 0..LEARNED_WINDOWS {
        (0..60).for_each(|_| monitor.update(&stream.row()).unwrap());
        monitor.close();
    }
    // A quarter of a deviation: too little for sixty rows, too much for many windows of them.
    let mut found = None;
    for number in 0..40 {
        for _ in 0..60 {
            let mut row = stream.row();
            row[3] += 1.5;
            monitor.update(&row).unwrap();
        }
        let closed = monitor.close();
        if let Some(finding) = closed.judgement.features.iter().find(|finding| finding.gradual) {
            found = Some((number, finding.name.clone(), finding.level));
            break;
        }
    }
    let (number, name, level) = found.expect("it is noticed");
    assert!((1..20).contains(&number) && name == "d" && level >= Level::Warn, "{number} {name} {level:?}");
}

#[test]
fn a_device_goes_on_after_a_power_cut() {
    let mut monitor = Monitor::new(baseline());
    let mut stream = Stream(fastrand::Rng::with_seed(5));
    let step = |monitor: &mut Monitor, rows: &[[f32; 5]]| {
        rows.iter().for_each(|row| monitor.update(row).unwrap());
        monitor.close()
    };
    for _ in 0..LEARNED_WINDOWS + 3 {
        let rows: Vec<[f32; 5]> = (0..60).map(|_| stream.row()).collect();
        step(&mut monitor, &rows);
    }
    let mut other = Monitor::new(baseline());
    other.remember(monitor.memory()).unwrap();
    for _ in 0..5 {
        let rows: Vec<[f32; 5]> = (0..60).map(|_| stream.row()).collect();
        assert_eq!(step(&mut other, &rows), step(&mut monitor, &rows));
        assert_eq!(other.memory(), monitor.memory());
    }
    // A text may lose the last bit of a number; nothing else.
    let kept: Memory = serde_json::from_slice(&serde_json::to_vec(&monitor.memory()).unwrap()).unwrap();
    assert_eq!(other.remember(kept), Ok(()));
    let mut stranger = Monitor::new(Baseline::measure([("x", &[1.0, 2.0][..])]).unwrap());
    assert_eq!(stranger.remember(monitor.memory()), Err(SummaryError::OtherBaseline));
}
