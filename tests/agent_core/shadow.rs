//! A release in the shadow of the one before it: compared, and heard by nobody; then on trial, or taken back.

use super::bench::*;
use agent_core::Effect;
use protocol::{Report, ShadowReport};

/// Release 2 is compared with release 1: 100 answers, of which 5 may be others, within a minute.
fn shadowing_2() -> Vec<(&'static str, &'static str)> {
    let beside = [
        ("assign 2 install 2 10 0 60 shadow:100:5", "verdict 1: 1 confirmed, fetch 2"),
        ("stored 2", "examine 2"),
        ("examined 2", "probe 2"),
        ("probed 2", "shadow 2"),
    ];
    [RUNNING_1, &beside].concat()
}

/// The trial of release 2, from its beginning to its end.
const TRIED: [(&str, &str); 2] = [("served 2", ""), ("answers 2 10 0", "verdict 2: 2 confirmed, serve 2")];

fn report(effects: &[Effect]) -> Report {
    let report = effects.iter().find_map(|effect| match effect {
        Effect::PublishReport(report) => Some(report.clone()),
        _ => None,
    });
    report.expect("a report")
}

#[test]
fn enough_answers_that_are_alike_begin_the_trial() {
    let alike = [("compared 2 60 5", ""), ("compared 2 39 0", ""), ("compared 2 1 0", "serve 2 else 1")];
    let bench = then(&shadowing_2(), &[&alike[..], &TRIED].concat());
    assert_eq!(bench.saved.streams[&stream()].active.unwrap().release, 2);
}

#[test]
fn too_many_that_are_others_take_it_back_as_soon_as_that_is_certain() {
    let back = "verdict 2: 2 reverted E_PROBATION, serve 1";
    let bench = then(&shadowing_2(), &[("compared 2 5 5", ""), ("compared 2 1 1", back), ("compared 2 50 0", "")]);
    assert_eq!(bench.saved.streams[&stream()].active.unwrap().release, 1);
    then(&shadowing_2(), &[("compared 2 200 10", "serve 2 else 1")]);
    then(&shadowing_2(), &[("compared 2 200 11", back)]);
}

#[test]
fn what_was_seen_when_its_time_is_over_decides() {
    then(&shadowing_2(), &[("wait 59", ""), ("wait 1", "serve 2 else 1")]);
    then(&shadowing_2(), &[("compared 2 20 1", ""), ("wait 60", "serve 2 else 1")]);
    then(&shadowing_2(), &[("compared 2 19 1", ""), ("wait 60", "verdict 2: 2 reverted E_PROBATION, serve 1")]);
}

#[test]
fn a_release_that_falls_or_does_not_load_in_the_shadow_is_taken_back() {
    for (event, code) in [("fell 2", "E_PROBATION"), ("late 2", "E_MODEL"), ("unloadable 2", "E_DIGEST")] {
        then(&shadowing_2(), &[(event, &format!("verdict 2: 2 reverted {code}, serve 1"))]);
    }
    // What answers may fall: that is no fault of its shadow.
    then(&shadowing_2(), &[("fell 1", ""), ("compared 2 100 0", "serve 2 else 1")]);
}

#[test]
fn nothing_to_be_compared_with_begins_the_trial_at_once() {
    check(&[
        ("connect", "await root 2, hello"),
        ("assign 1 install 1 10 0 60 shadow:100:5", "fetch 1"),
        ("stored 1", "examine 1"),
        ("examined 1", "probe 1"),
        ("probed 1", "serve 1"),
    ]);
    let bench = then(&shadowing_2(), &[("revoke fallback 1", "serve nothing, serve 2"), ("served 2", "")]);
    assert_eq!(bench.saved.streams[&stream()].trial.unwrap().candidate.release, 2);
}

#[test]
fn a_power_cut_begins_it_anew() {
    let bench = then(
        &shadowing_2(),
        &[
            ("compared 2 90 0", ""),
            ("restart", "serve 1, fetch 2"),
            ("stored 2", "examine 2"),
            ("examined 2", "probe 2"),
            ("probed 2", "shadow 2"),
            ("compared 2 99 0", ""),
            ("compared 2 1 0", "serve 2 else 1"),
        ],
    );
    assert_eq!(bench.saved.streams[&stream()].trial.unwrap().boots, 0);
}

#[test]
fn a_newer_assignment_and_a_revocation_end_it() {
    then(&shadowing_2(), &[("assign 3 install 3", "serve 1, fetch 3"), ("compared 2 100 0", "")]);
    then(&shadowing_2(), &[("assign 3 none", "serve 1, serve nothing")]);
    then(&shadowing_2(), &[("revoke no-new 2", "serve 1, verdict 2: 2 refused E_REVOKED_BUNDLE")]);
    // Another stream's news do not.
    then(&shadowing_2(), &[("assign 2 install 2 10 0 60 shadow:100:5", ""), ("compared 2 100 0", "serve 2 else 1")]);
}

#[test]
fn the_report_tells_what_was_compared() {
    let mut bench = check(&shadowing_2());
    bench.happen("compared 2 7 2");
    let told = report(&bench.happen(r#"command 1 {"what": "report"}"#));
    let row = &told.streams[0];
    let trial = row.trial.unwrap();
    assert_eq!((row.active.unwrap().release, trial.release, trial.answers), (1, 2, 0));
    assert_eq!(trial.shadow, Some(ShadowReport { compared: 7, disagreed: 2 }));
    let told = report(&bench.happen("compared 2 93 0"));
    assert_eq!(told.streams[0].trial.unwrap().shadow, None, "it is on trial");
}
