//! The transitions of a device, as tables: what happens on the left, what the core asks for on the right.
//!
//! One stream, `digits`; releases are numbers. Release 5 raises the floor to 4, release 6 needs other
//! hardware, release 7 a newer agent. Reports and `Keep` are left out of the tables; see the last tests.

mod beliefs;
mod bench;
mod commands;
mod samples;
mod shadow;
mod spool;

use agent_core::{Effect, Limits, Metered};
use bench::*;
use world::signer::number;

#[test]
fn a_release_is_confirmed_by_answers() {
    let bench = then(
        &trying_2(),
        &[("answers 2 9 0", ""), ("answers 2 1 0", "verdict 2: 2 confirmed, serve 2"), ("delivered 2", "")],
    );
    let state = &bench.saved.streams[&stream()];
    assert_eq!(state.active.unwrap().release, 2);
    assert_eq!(state.previous.unwrap().release, 1);
    assert!(bench.saved.outbox.is_empty());
}

#[test]
fn a_release_that_nobody_asks_is_confirmed_by_its_window() {
    then(&trying_2(), &[("wait 59", ""), ("wait 1", "verdict 2: 2 confirmed, serve 2")]);
}

#[test]
fn a_release_with_errors_is_taken_back() {
    let bench = then(
        &trying_2(),
        &[
            ("answers 2 3 1", "verdict 2: 2 reverted E_PROBATION, serve 1"),
            // Late news of it change nothing.
            ("answers 2 50 0", ""),
            ("served 2", ""),
            ("wait 60", ""),
        ],
    );
    assert_eq!(bench.saved.streams[&stream()].active.unwrap().release, 1);
}

#[test]
fn a_release_that_does_not_load_is_taken_back() {
    then(&trying_2()[..12], &[("unloadable 2", "verdict 2: 2 reverted E_DIGEST, serve 1")]);
}

#[test]
fn a_release_that_fails_before_it_serves_never_serves() {
    let fetched = [RUNNING_1, &TRYING_2[..2]].concat();
    then(&fetched, &[("forged 2", "verdict 2: 2 refused E_SIG")]);
    then(&fetched, &[("examined 2", "probe 2"), ("disagrees 2", "verdict 2: 2 refused E_GOLDEN")]);
    // A bundle that is not the one under way is no news.
    then(&fetched, &[("examined 1", ""), ("probed 2", ""), ("served 2", "")]);
}

#[test]
fn a_release_that_does_not_fit_is_refused_by_its_manifest() {
    for (release, code) in [("6", "E_HARDWARE"), ("7", "E_AGENT_OLD")] {
        let line = |text: &str| text.replace('R', release);
        let (assign, fetch) = (line("assign 2 install R"), line("verdict 1: 1 confirmed, fetch R"));
        let (stored, verify, verified) = (line("stored R"), line("examine R"), line("examined R"));
        let refused = format!("verdict 2: {release} refused {code}");
        then(RUNNING_1, &[(&assign, &fetch), (&stored, &verify), (&verified, &refused)]);
    }
}

#[test]
fn a_release_that_does_not_fit_is_refused_before_its_bulk_comes() {
    for (release, code) in [("6", "E_HARDWARE"), ("7", "E_AGENT_OLD")] {
        let line = |text: &str| text.replace('R', release);
        let (assign, fetch) = (line("assign 2 install R"), line("verdict 1: 1 confirmed, fetch R"));
        let (described, refused) = (line("described R"), line("leave R, verdict 2: R refused ") + code);
        then(RUNNING_1, &[(&assign, &fetch), (&described, &refused)]);
    }
    then(
        RUNNING_1,
        &[
            ("assign 2 install 2", "verdict 1: 1 confirmed, fetch 2"),
            ("described 2 900", "admit 2"),
            ("described 2 900", ""),
            ("stored 2", "examine 2"),
        ],
    );
}

/// Bundles of the bench promise to do with 16 MiB.
#[test]
fn a_release_is_refused_when_what_stays_loaded_leaves_it_no_memory() {
    let second = &[
        ("assign 2 install 2", "verdict 1: 1 confirmed, fetch 2"),
        ("described 2", "leave 2, verdict 2: 2 refused E_HARDWARE"),
    ];
    let bench = live(Bench::with(Limits { models_mb: 31, metered: None }), &[RUNNING_1, second].concat());
    let detail = bench.agent.refusals().next().unwrap().detail.clone();
    assert_eq!(detail, "it needs 16 MiB of memory; of 31 for models 16 are in use");
    let fits = &[("assign 2 install 2", "verdict 1: 1 confirmed, fetch 2"), ("described 2", "admit 2")];
    let bench = live(Bench::with(Limits { models_mb: 32, metered: None }), &[RUNNING_1, fits].concat());
    assert_eq!(bench.saved.ram_in_use(), 16);
}

#[test]
fn a_bundle_that_is_too_dear_for_the_link_waits_until_somebody_brings_it() {
    let metered = |refuses| Limits { models_mb: 512, metered: Some(Metered { most: 1_000, refuses }) };
    let cheap =
        &[("connect", "await root 2, hello"), ("assign 1 install 1", "fetch 1"), ("described 1 1000", "admit 1")];
    live(Bench::with(metered(false)), cheap);
    let dear = &[
        ("connect", "await root 2, hello"),
        ("assign 1 install 1", "fetch 1"),
        ("described 1 1001", ""),
        ("wait 100000", "hello"),
        ("stored 1", "examine 1"),
    ];
    let bench = live(Bench::with(metered(false)), &dear[..3]);
    let phase = &bench.agent.phases()[&stream()];
    let words = "1001 bytes are to come over a metered link, which takes 1000 for a bundle";
    assert_eq!((phase.name(), phase.held_by().unwrap().detail.as_str()), ("deferred", words));
    live(bench, &[("assign 2 install 2", "leave 1, fetch 2")]);
    live(Bench::with(metered(false)), dear);
    // After a start it is asked again.
    let again = [&dear[..3], &[("restart", "serve nothing, fetch 1"), ("described 1 1001", "")]].concat();
    live(Bench::with(metered(false)), &again);
    let refused = [&dear[..2], &[("described 1 1001", "leave 1, verdict 1: 1 refused E_LINK")]].concat();
    live(Bench::with(metered(true)), &refused);
}

#[test]
fn a_release_whose_answers_take_too_long_is_taken_back_when_land_said_how_long() {
    // An answer takes release 1 a tenth of a millisecond.
    let trying = |words: &'static str| {
        let mut script = trying_2();
        script[RUNNING_1.len()].0 = words;
        script
    };
    let limited = trying("assign 2 install 2 40 0 60 slow:200");
    then(&limited, &[("answers 2 20 0 200", ""), ("answers 2 20 0 200", "verdict 2: 2 confirmed, serve 2")]);
    then(&limited, &[("answers 2 9 0 900", ""), ("answers 2 1 0 900", "verdict 2: 2 reverted E_PROBATION, serve 1")]);
    then(&trying("assign 2 install 2 40 0 60"), &[("answers 2 40 0 900", "verdict 2: 2 confirmed, serve 2")]);
    // Too few to say, and nothing known of the release before since the start.
    then(&limited, &[("answers 2 9 0 900", ""), ("wait 60", "verdict 2: 2 confirmed, serve 2")]);
}

/// Bundles of the bench promise to do with 16 MiB.
#[test]
fn a_release_whose_process_holds_too_much_memory_is_taken_back() {
    let trying = |words: &'static str| {
        let mut script = trying_2();
        script[RUNNING_1.len()].0 = words;
        script
    };
    let (back, confirmed) = ("verdict 2: 2 reverted E_PROBATION, serve 1", "verdict 2: 2 confirmed, serve 2");
    let limited = trying("assign 2 install 2 10 0 60 memory:150");
    then(&limited, &[("answers 2 1 0 100 24", ""), ("answers 2 9 0 100 24", confirmed)]);
    let bench = then(&limited, &[("answers 2 1 0 100 24", ""), ("answers 2 1 0 100 25", back)]);
    let detail = bench.saved.streams[&stream()].verdict.as_ref().unwrap().detail.clone().unwrap();
    assert_eq!(detail, "its process holds 25 MiB of memory; its manifest promises 16, 24 are allowed");
    // Without a word of land what a process may take: twice the promise, and 64 MiB.
    then(&trying_2(), &[("answers 2 1 0 100 96", ""), ("answers 2 9 0 100 0", confirmed)]);
    then(&trying_2(), &[("answers 2 1 0 100 97", back)]);
    // What the release before holds is not its fault.
    then(&limited, &[("answers 1 1 0 100 90", ""), ("answers 2 10 0 100 1", confirmed)]);
}

#[test]
fn a_release_whose_process_falls_on_trial_is_taken_back() {
    then(&trying_2(), &[("fell 2", "verdict 2: 2 reverted E_PROBATION, serve 1")]);
    then(&trying_2()[..12], &[("fell 2", "verdict 2: 2 reverted E_PROBATION, serve 1"), ("served 2", "")]);
    // That the one before falls says nothing of the one on trial.
    then(&trying_2(), &[("fell 1", ""), ("wait 60", "verdict 2: 2 confirmed, serve 2")]);
}

#[test]
fn a_confirmed_release_whose_process_falls_again_and_again_gives_its_place_to_the_one_before() {
    let confirmed = [&trying_2()[..], &[("wait 60", "verdict 2: 2 confirmed, serve 2")]].concat();
    let fell = [("fell 2", ""); 4];
    let bench = then(&confirmed, &[&fell[..], &[("fell 2", "discard 2, serve 1, fetch 2")]].concat());
    assert_eq!(bench.agent.refusals().map(|r| (r.code.as_str(), r.count)).collect::<Vec<_>>(), [("E_MODEL", 5)]);
    // Falls that are long over do not count.
    then(&confirmed, &[&fell[..], &[("wait 600", ""), ("fell 2", "")]].concat());
}

#[test]
fn a_confirmed_release_that_does_not_come_up_is_started_again_before_it_loses_its_place() {
    let confirmed = [&trying_2()[..], &[("wait 60", "verdict 2: 2 confirmed, serve 2")]].concat();
    let late = [("late 2", "serve 2"), ("late 2", "serve 2"), ("late 2", "discard 2, serve 1, fetch 2")];
    then(&confirmed, &late);
    then(&confirmed, &[("late 2", "serve 2"), ("served 2", ""), ("wait 600", ""), ("late 2", "serve 2")]);
}

#[test]
fn a_declared_rollback_is_tried_like_any_release() {
    then(
        &trying_2(),
        &[
            ("wait 60", "verdict 2: 2 confirmed, serve 2"),
            ("assign 3 rollback 1 0 0 0", "verdict 2: 2 confirmed, fetch 1"),
            ("stored 1", "examine 1"),
            ("examined 1", "probe 1"),
            ("probed 1", "serve 1 else 2"),
            ("served 1", "verdict 3: 1 confirmed, serve 1"),
        ],
    );
}

#[test]
fn an_older_release_without_that_intent_is_refused() {
    then(
        &trying_2(),
        &[
            ("wait 60", "verdict 2: 2 confirmed, serve 2"),
            ("assign 3 install 1", "verdict 2: 2 confirmed, verdict 3: 1 refused E_UNDECLARED_ROLLBACK"),
        ],
    );
}

/// Release 5 is confirmed: the floor is 4.
const FLOOR_4: &[(&str, &str)] = &[
    ("assign 2 install 5", "verdict 1: 1 confirmed, fetch 5"),
    ("stored 5", "examine 5"),
    ("examined 5", "probe 5"),
    ("probed 5", "serve 5 else 1"),
    ("served 5", ""),
    ("wait 60", "verdict 2: 5 confirmed, serve 5"),
];

#[test]
fn nothing_goes_below_the_floor() {
    let above = [RUNNING_1, FLOOR_4].concat();
    then(&above, &[("assign 3 rollback 3", "verdict 2: 5 confirmed, verdict 3: 3 refused E_FLOOR")]);
    then(&above, &[("assign 3 rollback 4", "verdict 2: 5 confirmed, fetch 4")]);
}

#[test]
fn a_floor_outlives_the_stream_being_taken_away() {
    let above = [RUNNING_1, FLOOR_4].concat();
    then(
        &above,
        &[
            ("assign 3 none", "verdict 2: 5 confirmed, serve nothing"),
            ("assign 4 none", ""),
            ("restart", ""),
            ("connect", "await root 2, hello, verdict 2: 5 confirmed"),
            ("assign 5 install 3", "verdict 3: 3 refused E_FLOOR"),
        ],
    );
}

#[test]
fn a_release_on_trial_raises_no_floor() {
    let on_trial = [RUNNING_1, &FLOOR_4[..5]].concat();
    let bench = then(&on_trial, &[("answers 5 0 1", "verdict 2: 5 reverted E_PROBATION, serve 1")]);
    assert_eq!(bench.agent.trust().floor("digits"), 0);
}

#[test]
fn an_old_assignment_is_noted_and_changes_nothing() {
    let bench = then(&trying_2(), &[("assign 1 install 3", "")]);
    assert_eq!(bench.saved.trust.as_ref().unwrap().assignment().unwrap().seq, number(2));
    assert!(bench.agent.refusals().any(|r| r.code == "E_REPLAY"));
}

#[test]
fn what_was_refused_stays_refused_until_land_wants_it_anew() {
    let refused = [RUNNING_1, &TRYING_2[..1], &[("forged 2", "leave 2, verdict 2: 2 refused E_SIG")]].concat();
    then(&refused, &[("assign 2 install 2", "verdict 2: 2 refused E_SIG"), ("restart", "serve 1")]);
    then(&refused, &[("assign 3 install 2", "verdict 2: 2 refused E_SIG, fetch 2")]);
}

#[test]
fn a_newer_assignment_supersedes_a_trial() {
    let bench = then(
        &trying_2(),
        &[("assign 3 install 3", "verdict 2: 2 reverted E_SUPERSEDED, serve 1, fetch 3"), ("served 2", "")],
    );
    assert_eq!(bench.saved.streams[&stream()].active.unwrap().release, 1);
}

#[test]
fn a_newer_assignment_leaves_a_fetch() {
    let fetching = [RUNNING_1, &TRYING_2[..1]].concat();
    then(&fetching, &[("assign 3 install 3", "leave 2, fetch 3"), ("stored 2", "")]);
}

#[test]
fn hold_changes_nothing() {
    then(&trying_2(), &[("assign 3 hold 9", ""), ("wait 60", "verdict 2: 2 confirmed, serve 2")]);
}

#[test]
fn a_stream_that_is_not_listed_is_retired() {
    let bench = then(RUNNING_1, &[("assign 2 none", "verdict 1: 1 confirmed, serve nothing")]);
    assert!(bench.saved.streams.is_empty());
}

#[test]
fn a_release_that_crashes_the_agent_on_trial_is_taken_back() {
    then(
        &trying_2(),
        &[
            ("restart", "serve 2 else 1"),
            ("restart", "serve 2 else 1"),
            ("served 2", ""),
            ("restart", "serve 2 else 1"),
            ("restart", "serve 1"),
            ("connect", "await root 2, hello, verdict 2: 2 reverted E_PROBATION"),
        ],
    );
}

#[test]
fn an_active_release_that_is_lost_falls_back_and_is_fetched_anew() {
    then(
        &trying_2(),
        &[
            ("wait 60", "verdict 2: 2 confirmed, serve 2"),
            ("restart", "serve 2"),
            ("unloadable 2", "discard 2, serve 1, fetch 2"),
            ("served 1", ""),
            ("stored 2", "examine 2"),
            ("examined 2", "probe 2"),
            ("probed 2", "serve 2 else 1"),
        ],
    );
}

#[test]
fn an_operating_failure_is_tried_again_with_growing_pauses() {
    let fetching = [RUNNING_1, &TRYING_2[..1]].concat();
    then(
        &fetching,
        &[
            ("stumbled 2", ""),
            ("wait 4", ""),
            ("wait 1", "fetch 2"),
            ("stumbled 2", ""),
            ("wait 9", ""),
            ("wait 1", "fetch 2"),
            ("stored 2", "examine 2"),
        ],
    );
}

#[test]
fn a_power_cut_leads_back_to_where_it_was() {
    let fetching = [RUNNING_1, &TRYING_2[..1]].concat();
    then(&fetching, &[("restart", "serve 1, fetch 2"), ("stored 2", "examine 2"), ("restart", "serve 1, fetch 2")]);
}

#[test]
fn a_verdict_is_said_until_the_broker_has_it_and_when_land_repeats_itself() {
    then(
        &RUNNING_1[..6],
        &[
            ("disconnect", ""),
            ("answers 1 10 0", "serve 1"),
            ("restart", "serve 1"),
            ("connect", "await root 2, hello, verdict 1: 1 confirmed"),
            ("delivered 1", ""),
            ("disconnect", ""),
            ("connect", "await root 2, hello"),
            ("assign 1 install 1", "verdict 1: 1 confirmed"),
        ],
    );
}

#[test]
fn hello_is_said_again_until_land_answers() {
    check(&[
        ("connect alone", "await root 2, hello"),
        ("wait 4", ""),
        ("wait 1", "hello"),
        ("wait 9", ""),
        ("wait 1", "hello"),
        ("beacon stale", ""),
        ("wait 20", "hello"),
        ("beacon fresh", ""),
        ("wait 9000", ""),
        // Fresh for a day: asked for long before that is over.
        ("wait 12600", "hello"),
    ]);
}

#[test]
fn what_may_be_needed_is_kept_and_the_report_says_what_is() {
    let mut bench = check(&trying_2());
    let effects = bench.happen("answers 2 10 0");
    let report = effects.iter().find_map(|e| if let Effect::PublishReport(r) = e { Some(r) } else { None }).unwrap();
    assert_eq!(report.streams[0].active.unwrap().release, 2);
    assert_eq!(report.streams[0].previous.unwrap().release, 1);
    let effects = [bench.happen("assign 3 install 3"), bench.happen("forged 3")].concat();
    let kept: Vec<Vec<u64>> = effects
        .iter()
        .filter_map(|e| if let Effect::Keep { bundles } = e { Some(bundles) } else { None })
        .map(|bundles| {
            let mut releases: Vec<u64> = bundles.iter().map(|b| bench.release(*b)).collect();
            releases.sort_unstable();
            releases
        })
        .collect();
    assert_eq!(kept, [vec![1, 2, 3], vec![1, 2]]);
}
