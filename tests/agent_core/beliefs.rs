//! What documents do to a device: revocations, roots, beacons, too many assignments, a lost memory.

use super::bench::*;
use agent_core::{Agent, Effect, Ledger};
use world::signer::{FLEET, number};

/// The codes that the report would show, with how often.
fn refused(bench: &Bench) -> String {
    bench.agent.refusals().map(|r| format!("{} {}", r.code, r.count)).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_revoked_release_falls_back_to_the_one_before_it() {
    let confirmed = [RUNNING_1, TRYING_2, &[("wait 60", "verdict 2: 2 confirmed, serve 2")]].concat();
    for severity in ["info", "no-new"] {
        then(&confirmed, &[(&format!("revoke {severity} 2"), ""), ("restart", "serve 2")]);
    }
    let bench = then(&confirmed, &[("revoke fallback 2", "serve 1"), ("restart", "serve 1")]);
    assert_eq!(bench.saved.streams[&stream()].active.unwrap().release, 1);
    let bench = then(
        &confirmed,
        &[
            ("revoke fallback 2", "serve 1"),
            ("assign 3 install 2", "verdict 2: 2 confirmed, verdict 3: 2 refused E_REVOKED_BUNDLE"),
        ],
    );
    assert_eq!(refused(&bench), "E_REVOKED_BUNDLE 2");
}

#[test]
fn with_nothing_good_left_nothing_answers_and_nothing_goes_round_in_circles() {
    let confirmed = [RUNNING_1, TRYING_2, &[("wait 60", "verdict 2: 2 confirmed, serve 2")]].concat();
    let bench = then(
        &confirmed,
        &[
            ("revoke fallback 1 2", "serve nothing"),
            ("restart", "serve nothing"),
            ("connect", "await root 2, hello, verdict 2: 2 confirmed"),
            // What land says next may give it back.
            ("revoke info 2", "serve 2"),
        ],
    );
    assert_eq!(refused(&bench), "");
}

#[test]
fn a_stop_needs_two_signatures() {
    let bench = then(RUNNING_1, &[("revoke stop 1", "")]);
    assert_eq!(refused(&bench), "E_THRESHOLD 1");
}

#[test]
fn a_revoked_release_is_left_on_its_way_and_on_trial() {
    then(
        &[RUNNING_1, &TRYING_2[..1]].concat(),
        &[("revoke no-new 2", "leave 2, verdict 2: 2 refused E_REVOKED_BUNDLE")],
    );
    then(&trying_2(), &[("revoke no-new 2", "verdict 2: 2 reverted E_REVOKED_BUNDLE, serve 1")]);
}

#[test]
fn a_revocation_that_is_lost_on_the_disk_gives_nothing_back() {
    let mut bench = then(RUNNING_1, &[("revoke fallback 1", "serve nothing")]);
    bench.documents.clear();
    assert!(bench.happen("restart").iter().all(|e| !matches!(e, Effect::Serve { .. })));
    let effects = bench.happen("assign 2 install 2");
    assert!(!effects.iter().any(|e| matches!(e, Effect::Fetch { .. })), "nothing is installed until it came again");
    assert_eq!(refused(&bench), "E_REVOCATION_OLD 1");
}

#[test]
fn what_a_device_lacks_makes_its_installs_wait() {
    let mut bench = then(RUNNING_1, &[("beacon fresh", "")]);
    let newer = bench.root(|_| ());
    // Land knows a root that this device has not seen: nothing is refused for good.
    assert!(!bench.happen("beacon fresh").iter().any(|e| matches!(e, Effect::DeliverVerdict(_))));
    bench.happen("assign 2 install 2");
    assert_eq!(refused(&bench), "E_ROOT_OLD 1");
    let effects = bench.step(newer);
    let said: Vec<String> = effects.iter().filter_map(|e| bench.say(e)).collect();
    assert_eq!(said, ["await root 3", "hello"], "the assignment that it missed is asked for");
    assert!(bench.happen("assign 2 install 2").iter().any(|e| matches!(e, Effect::Fetch { .. })));
}

#[test]
fn a_root_renews_the_director_and_the_old_one_is_believed_no_more() {
    let mut bench = then(RUNNING_1, &[]);
    let old = bench.assign(&["7", "install", "2"]);
    let renewed = bench.root(|root| root.roles.get_mut("director").unwrap().role_epoch = number(2));
    bench.step(renewed);
    bench.step(old);
    assert_eq!(refused(&bench), "E_REPLAY 1");
    bench.numbers.director = 2;
    // Numbers begin again in the new epoch.
    assert!(bench.happen("assign 1 install 2").iter().any(|e| matches!(e, Effect::Fetch { .. })));
    assert!(bench.happen("beacon fresh").iter().all(|e| !matches!(e, Effect::StopServing { .. })));
}

#[test]
fn t45_changes_that_come_too_fast_wait_and_the_newest_counts() {
    let mut bench = then(RUNNING_1, &[]);
    let mut saves = 0;
    for generation in 2..102 {
        let (intent, release) = if generation % 2 == 0 { ("install", 2) } else { ("rollback", 1) };
        let before = bench.saved.clone();
        bench.happen(&format!("assign {generation} {intent} {release}"));
        saves += usize::from(before != bench.saved);
    }
    assert!(saves <= 10, "{saves} writes of the ledger for 100 assignments");
    assert_eq!(bench.agent.refusals().find(|r| r.code == "E_RATE").unwrap().count, 100 - 9);
    let before = bench.saved.trust.as_ref().unwrap().assignment().unwrap().seq;
    assert!(before.get() < 101);
    bench.happen("wait 6");
    let newest = bench.saved.trust.as_ref().unwrap().assignment().unwrap().seq;
    assert_eq!(newest, number(101), "the newest of those that waited");
}

#[test]
fn t32_without_a_network_and_a_clock_the_old_model_answers_and_the_time_is_unset() {
    let mut bench = then(RUNNING_1, &[("restart", "serve 1")]);
    assert_eq!(bench.agent.clock(), protocol::ClockState::Stale);
    bench.happen("connect");
    assert_eq!(bench.agent.clock(), protocol::ClockState::Fresh);
    assert_eq!(Bench::new().agent.clock(), protocol::ClockState::Unset);
}

#[test]
fn t38_after_thirty_days_of_silence_the_old_model_answers_and_the_report_says_stale() {
    let mut bench = then(RUNNING_1, &[("beacon fresh", "")]);
    assert_eq!(bench.agent.clock(), protocol::ClockState::Fresh);
    let day = bench.happen("wait 86401");
    assert!(day.iter().any(|e| matches!(e, Effect::PublishReport(r) if r.clock == protocol::ClockState::Stale)));
    let mut effects: Vec<Effect> = (0..30).flat_map(|_| bench.happen("wait 86400")).collect();
    effects.extend(["disconnect", "connect alone"].iter().flat_map(|event| bench.happen(event)));
    assert!(!effects.iter().any(|e| matches!(e, Effect::StopServing { .. })));
    let mut reports = effects.iter().filter_map(|e| if let Effect::PublishReport(r) = e { Some(r) } else { None });
    let report = reports.next_back().expect("a report at its return");
    assert_eq!((report.clock, report.streams[0].active.unwrap().release), (protocol::ClockState::Stale, 1));
}

#[test]
fn when_the_root_ends_a_device_says_so_and_changes_nothing_any_more() {
    let mut bench = then(RUNNING_1, &[("beacon fresh", "")]);
    let seconds = bench.signer.root().expires.unix() - bench.signer.root().issued.unix();
    let effects = bench.happen(&format!("wait {}", seconds + 1));
    assert!(effects.iter().any(|e| matches!(e, Effect::PublishReport(r) if r.clock == protocol::ClockState::Expired)));
    let effects = bench.happen("assign 2 install 2");
    assert!(!effects.iter().any(|e| matches!(e, Effect::Fetch { .. } | Effect::StopServing { .. })));
    assert_eq!(refused(&bench), "E_EXPIRED_ROOT 1");
    assert_eq!(bench.saved.streams[&stream()].active.unwrap().release, 1);
}

#[test]
fn a_device_that_lost_its_memory_installs_nothing_until_land_answers() {
    let mut bench = Bench::new();
    let device = trust::Device {
        id: "d-01".into(),
        class: "generic".into(),
        certificate: None,
        built: bench.signer.root().issued,
    };
    let trust = trust::Trust::after_loss(device, FLEET, bench.signer.root_bytes()).unwrap();
    let (agent, step) = Agent::restore(
        FLEET.parse().unwrap(),
        bench.device.clone(),
        profile(),
        LIMITS,
        "boot 1".into(),
        trust,
        Ledger::default(),
    );
    bench.agent = agent;
    bench.commit(step);
    for (event, expected) in [
        ("connect alone", "await root 2, hello"),
        ("assign 1 install 1", ""),
        ("beacon stale", ""),
        ("beacon fresh", "fetch 1"),
    ] {
        let effects = bench.happen(event);
        let said: Vec<String> = effects.iter().filter_map(|e| bench.say(e)).collect();
        assert_eq!(said.join(", "), expected, "{event}");
    }
    assert_eq!(refused(&bench), "E_STALE 2");
}
