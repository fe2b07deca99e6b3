//! What the fleet's models see: windows that are added up, and which alarm is news.

use bridge_core::drift::{Concern, QUIET, Window, gather};
use drift::{Baseline, Level};
use protocol::{AlarmLevel, Drift, DriftAlarm};

const HOUR: u64 = 3_600_000;

fn baseline() -> Baseline {
    let values: Vec<f32> = (0..5_000).map(|n| (n % 100) as f32).collect();
    Baseline::measure([("a", values.as_slice())]).unwrap()
}

fn alarm(level: AlarmLevel, effect: f32) -> DriftAlarm {
    DriftAlarm { feature: "a".into(), level, cause: "population".into(), detail: "it moved".into(), effect, windows: 1 }
}

/// A window of `device` with the bundle `bundle`, that ended at the hour `at`: every value is moved by `by`.
fn window(device: &str, bundle: u8, at: u64, by: f32, alarms: Vec<DriftAlarm>) -> Window {
    let mut window = drift::Window::new(&baseline());
    (0..300).for_each(|n| window.update(&[((n * 37) % 100) as f32 + by]).unwrap());
    let drift = Drift {
        device: device.parse().unwrap(),
        boot: 1,
        run: 1,
        seq: at,
        at: None,
        uptime_s: 0,
        span_s: 3_600,
        stream: "s".parse().unwrap(),
        release: bundle.into(),
        statement: [bundle; 32],
        windows: 1,
        summary: window.close().encode(),
        alarms,
        unsaid: 0,
        performance: None,
    };
    Window { ended: at * HOUR, drift }
}

#[test]
fn windows_of_one_bundle_are_added_up_by_what_they_have_in_common() {
    let quiet = |device, bundle, at| window(device, bundle, at, 0.0, Vec::new());
    let mut windows = vec![quiet("x", 1, 5), quiet("y", 1, 6), quiet("x", 1, 7), quiet("x", 2, 8)];
    windows.push(window("y", 2, 9, 40.0, vec![alarm(AlarmLevel::Warn, 0.9)]));
    windows.push(window("y", 2, 10, 60.0, vec![alarm(AlarmLevel::Page, 0.4)]));
    let told = |windows: Vec<Window>, by: fn(&Window) -> String| -> Vec<_> {
        let group = |g: bridge_core::drift::Group| {
            let alarm = g.alarms.get("a").map(|alarm| (alarm.level, alarm.windows));
            (g.key, g.release, g.devices.len(), g.summary.windows, (g.from / HOUR, g.until / HOUR), alarm)
        };
        gather(windows, by).into_iter().map(group).collect()
    };
    let page = Some((AlarmLevel::Page, 2));
    let fleet = [("all".to_owned(), 1, 2, 3, (4, 7), None), ("all".to_owned(), 2, 2, 3, (7, 10), page)];
    assert_eq!(told(windows.clone(), |_| "all".into()), fleet);
    let backwards: Vec<Window> = windows.iter().rev().cloned().collect();
    assert_eq!(told(backwards, |_| "all".into()), fleet, "in whichever order they come");
    let devices = told(windows, |w| w.drift.device.to_string());
    assert_eq!(
        devices.iter().map(|(key, release, ..)| (key.as_str(), *release)).collect::<Vec<_>>(),
        [("x", 1), ("x", 2), ("y", 1), ("y", 2)]
    );
}

/// A season that canaries and control both have is far from the baseline, and no difference between them.
#[test]
fn canaries_are_held_against_control_and_not_against_the_season() {
    let group = |by: f32| gather([window("x", 1, 5, by, Vec::new())], |_| "all".into()).remove(0);
    let (control, canary) = (group(30.0), group(30.0));
    assert_eq!(canary.against(&baseline()).unwrap().level, Level::Page);
    assert_eq!(canary.against_control(&control, &baseline()).unwrap().level, Level::Quiet);
    assert_ne!(group(60.0).against_control(&control, &baseline()).unwrap().level, Level::Quiet);
    let other = Baseline::measure([("b", [1.0, 2.0].as_slice())]).unwrap();
    assert!(canary.against_control(&control, &other).is_err());
}

#[test]
fn an_alarm_is_one_until_it_was_quiet_for_a_day_and_a_louder_one_is_told_again() {
    let drift = window("x", 1, 100, 0.0, Vec::new()).drift;
    let mut concern = Concern::raised(&drift, &alarm(AlarmLevel::Warn, 0.3), 100 * HOUR);
    concern.acknowledged = Some(("ann".into(), 101 * HOUR));
    concern.again(&drift, &alarm(AlarmLevel::Warn, 0.2), 102 * HOUR);
    assert_eq!((concern.windows, concern.effect, concern.first, concern.last), (2, 0.3, 100 * HOUR, 102 * HOUR));
    assert!(concern.acknowledged.is_some(), "she has seen it");
    concern.again(&drift, &alarm(AlarmLevel::Page, 0.9), 101 * HOUR);
    assert_eq!((concern.level, concern.last, concern.acknowledged.clone()), (AlarmLevel::Page, 102 * HOUR, None));
    concern.again(&drift, &alarm(AlarmLevel::Warn, 0.1), 103 * HOUR);
    assert_eq!(concern.level, AlarmLevel::Page, "at its loudest");
    assert!(concern.is_open(103 * HOUR + QUIET - 1) && !concern.is_open(103 * HOUR + QUIET));
}
