//! Delivery as land decides it: what is published, published again, refused and cleared.

use super::{Bench, device, fleet, report};
use bridge_core::{Effect, Event, Needs};
use protocol::{Running, Standing, StreamReport};

/// A fleet in which every device should run release 1.
fn assigned(script: &[(&str, &str)]) -> Bench {
    let start = [("start 1 0 9999999", "publish 1, a 2: install 1, b 2: install 1, c 2: install 1, started 1")];
    fleet(&[&start[..], script].concat())
}

#[test]
fn only_a_device_that_should_run_it_is_helped() {
    let bench = fleet(&[
        ("start 1 0 600 only", "publish 1, a 2: install 1, started 1"),
        ("need a 1", "parts of 1"),
        ("need a 2", ""),
        ("need b 1", ""),
        ("need x 1", ""),
    ]);
    assert_eq!(bench.bridge.needs(), Needs { heard: 1, answered: 1, ..Needs::default() });
}

#[test]
fn what_was_published_just_now_serves_everybody_who_waits() {
    let bench = assigned(&[
        ("need a 1 1-3", "parts of 1: 3"),
        ("need b 1 1-3", ""),
        ("need c 1 2-5", "parts of 1: 2"),
        ("need b 1", "parts of 1"),
        ("need c 1", ""),
        ("wait 2", ""),
        ("need b 1 1-3", "parts of 1: 3"),
        ("need c 1", "parts of 1"),
    ]);
    assert_eq!(bench.bridge.needs(), Needs { heard: 7, answered: 10, just_published: 6, ..Needs::default() });
}

#[test]
fn a_device_that_asks_without_end_gets_its_share_and_the_others_theirs() {
    let bench = assigned(&[
        ("need a 1 1-64", "parts of 1: 64"),
        ("need a 1 65-128", "parts of 1: 64"),
        ("need a 1 129-192", "parts of 1: 64"),
        ("need a 1 193-256", "parts of 1: 64"),
        ("need a 1 257-320", ""),
        ("need b 1 257-320", "parts of 1: 64"),
        // A quarter of an hour gives a quarter of it.
        ("wait 900", ""),
        ("need a 1 1-64", "parts of 1: 64"),
        ("need a 1 65-66", ""),
        ("wait 36000", ""),
        ("need a 1 1-64", "parts of 1: 64"),
    ]);
    let needs = bench.bridge.needs();
    assert_eq!((needs.over_device, needs.over_fleet), (66, 0));
}

#[test]
fn all_together_get_no_more_than_the_fleet_may_have() {
    let mut bench = assigned(&[]);
    // 48 KiB are one chunk: two a second.
    bench.bridge.limit_needs((2 * 48 * 1024).try_into().unwrap());
    let mut check = |line: &str, expected: &str| assert_eq!(bench.happen(line).join(", "), expected, "{line}");
    check("need a 1 1-64", "parts of 1: 64");
    check("need b 1 65-66", "");
    check("wait 3", "");
    check("need b 1 65-128", "parts of 1: 6");
    check("need c 1", "");
    check("wait 3600", "");
    check("need c 1 1-64", "parts of 1: 64");
    check("need c 1 65-128", "");
    assert_eq!(bench.bridge.needs().over_device, 0);
    // A clock that goes back gives nothing and takes nothing.
    bench.unix -= 1_000_000;
    assert_eq!(bench.happen("need a 1 200-201"), Vec::<String>::new());
    assert!(bench.bridge.devices().contains_key(&device("a")));
}

#[test]
fn a_broker_that_retains_nothing_is_given_no_bundle_in_bulk() {
    fleet(&[
        ("connect forgotten forgetful", "a 1: nothing, b 1: nothing, c 1: nothing"),
        ("start 1 0 9999999 only", "a 2: install 1, started 1"),
        ("need a 1", "parts of 1"),
        ("need a 1 1-3", "parts of 1: 3"),
        ("connect remembered forgetful", "a 2: install 1, b 1: nothing, c 1: nothing"),
        // Another broker, or it was told to retain from now on.
        ("connect remembered", "publish 1, a 2: install 1, b 1: nothing, c 1: nothing"),
        ("connect remembered", "look for 1, a 2: install 1, b 1: nothing, c 1: nothing"),
        ("connect remembered forgetful", "a 2: install 1, b 1: nothing, c 1: nothing"),
        ("verdict a 1 1 confirmed", ""),
    ]);
}

#[test]
fn a_broker_that_kept_our_session_is_asked_for_what_it_should_retain() {
    fleet(&[
        ("connect remembered", "a 1: nothing, b 1: nothing, c 1: nothing"),
        ("start 1 0 9999999 only", "publish 1, a 2: install 1, started 1"),
        ("connect remembered", "look for 1, a 2: install 1, b 1: nothing, c 1: nothing"),
        ("missed 1", "publish 1"),
        ("missed 2", ""),
        ("verdict a 1 1 confirmed", "clear 1"),
        // It was cleared meanwhile.
        ("missed 1", ""),
        ("connect remembered", "a 2: install 1, b 1: nothing, c 1: nothing"),
        ("connect forgotten", "clear 1, a 2: install 1, b 1: nothing, c 1: nothing"),
    ]);
}

/// The documents for everybody that a step says.
fn documents(bench: &mut Bench, line: &str) -> usize {
    let event = bench.event(&line.split_whitespace().collect::<Vec<_>>());
    let effects = bench.step(event).effects;
    effects.iter().filter(|effect| matches!(effect, Effect::PublishDocument(_))).count()
}

#[test]
fn without_retention_documents_are_said_again_to_whoever_comes_once_for_all() {
    let mut bench = fleet(&[]);
    assert_eq!(documents(&mut bench, "connect forgotten"), 1);
    bench.unix += 60_000;
    assert_eq!(documents(&mut bench, "hello a 1"), 0, "the broker says them");
    assert_eq!(documents(&mut bench, "connect forgotten forgetful"), 1);
    assert_eq!(documents(&mut bench, "hello a 2"), 0, "said just now");
    assert_eq!(documents(&mut bench, "hello b 1"), 0);
    assert_eq!(bench.bridge.deadline(), Some(bench.unix + 5_000));
    assert_eq!(documents(&mut bench, "wait 5"), 1, "but they may not have heard it");
    assert_eq!(documents(&mut bench, "wait 5"), 0);
    assert_eq!(documents(&mut bench, "hello c 1"), 1, "nobody was told for long");
    assert_eq!(documents(&mut bench, "hello x 1"), 0);
}

/// A report of a device that says which releases it holds, active and before it.
pub(super) fn holds(
    bench: &mut Bench,
    id: &str,
    seq: u64,
    active: Option<usize>,
    previous: Option<usize>,
) -> Vec<String> {
    let running = |release: usize| {
        let bundle = &bench.bundles[release - 1];
        Running { release: bundle.release, statement_sha256: bundle.digest.0 }
    };
    let row = StreamReport {
        stream: "digits".parse().unwrap(),
        active: active.map(running),
        previous: previous.map(running),
        trial: None,
        floor: 0,
        standing: Standing::Good,
        held: None,
        sandbox: None,
    };
    let Event::ReportReceived(mut report) = report(id, 1, seq, None) else { return Vec::new() };
    report.streams = vec![row];
    let effects = bench.step(Event::ReportReceived(report)).effects;
    effects.iter().filter_map(|effect| bench.say(effect)).collect()
}

#[test]
fn a_bundle_lies_at_the_broker_while_a_device_waits_for_it() {
    let mut bench = fleet(&[
        ("start 1 0 600", "publish 1, a 2: install 1, b 2: install 1, c 2: install 1, started 1"),
        ("verdict a 1 1 confirmed", ""),
        ("verdict b 1 1 confirmed", ""),
        ("verdict c 1 1 confirmed", "clear 1"),
    ]);
    for id in ["a", "b", "c"] {
        assert!(holds(&mut bench, id, 1, Some(1), None).is_empty());
    }
    let mut check = |line: &str, expected: &str| assert_eq!(bench.happen(line).join(", "), expected, "{line}");
    check("start 2 0 600", "publish 2, a 3: install 2, b 3: install 2, c 3: install 2, started 2");
    check("verdict a 2 2 confirmed", "");
    // Those who say that they hold it go back to it without the broker.
    check("wait 600", "clear 2, a 4: rollback 1, b 4: rollback 1, c 4: rollback 1");
    // This one lost its disk; its verdicts are counted anew.
    assert_eq!(holds(&mut bench, "b", 2, None, None), ["publish 1"]);
    bench.happen("restart");
    let said = bench.happen("connect remembered");
    assert_eq!(said[..2], ["clear 2 but what is of 1", "publish 1"], "after a crash too");
    assert!(holds(&mut bench, "c", 2, Some(1), None).is_empty(), "b still waits");
    assert_eq!(holds(&mut bench, "b", 3, Some(1), None), ["clear 1"]);
}

#[test]
fn a_bundle_that_goes_takes_nothing_from_one_that_stays() {
    let mut bench = fleet(&[("start 1 1 600 only", "publish 1, a 2: install 1, started 1")]);
    assert!(holds(&mut bench, "a", 1, None, None).is_empty());
    let mut check = |line: &str, expected: &str| assert_eq!(bench.happen(line).join(", "), expected, "{line}");
    check("verdict a 1 1 confirmed", "clear 1");
    check("start 2 0 600 only", "publish 2, a 3: install 2, started 2");
    // It is sent back to what it does not hold any more, as it says.
    check("verdict a 2 2 reverted", "clear 2 but what is of 1, publish 1, a 4: rollback 1");
    // It refuses that too: nobody waits any more.
    check("verdict a 3 1 refused", "clear 1");
}

#[test]
fn nobody_waits_for_a_device_that_was_thrown_out() {
    let mut bench = fleet(&[("start 1 1 600 only", "publish 1, a 2: install 1, started 1")]);
    assert!(holds(&mut bench, "a", 1, None, None).is_empty());
    let said = bench.happen("revoke a");
    assert!(said.contains(&"clear 1".to_owned()), "{said:?}");
}
