//! Land that was put back from a copy: what its devices went on to meanwhile is not taken from them.

use super::{Bench, FLEET, device, fleet, report};
use bridge_core::{Bridge, Event, Record, put_back};
use protocol::{Generation, Running, Standing, StreamReport};

/// When land is put back: numbers go on from here.
const THEN: u64 = 1_800_000_000_000;

/// Everybody runs release 1; `then` happens after the copy, and is forgotten with all that `forget` names.
fn copied(then: &[&str], forget: impl Fn(&Record) -> bool) -> Bench {
    let mut bench = fleet(&[
        ("start 1 0 600 100%", "publish 1, a 2: install 1, b 2: install 1, c 2: install 1, started 1"),
        ("verdict a 1 1 confirmed", ""),
        ("verdict b 1 1 confirmed", ""),
        ("verdict c 1 1 confirmed", "clear 1"),
    ]);
    let copy: Vec<Record> = bench.saved.iter().filter(|record| !forget(record)).cloned().collect();
    then.iter().for_each(|line| drop(bench.happen(line)));
    let text = serde_json::to_string(&put_back(copy, bench.unix, THEN)).unwrap();
    bench.saved = serde_json::from_str(&text).unwrap();
    bench.bridge = Bridge::restore(FLEET.parse().unwrap(), bench.saved.clone()).unwrap();
    bench.unix = THEN + 1_000;
    bench
}

impl Bench {
    /// A device says which assignment it knows, and which release it runs.
    fn runs(&mut self, id: &str, seq: u64, generation: u64, release: u64) -> String {
        let Event::ReportReceived(mut said) = report(id, 1, seq, None) else { panic!("a report") };
        said.generation = Some(Generation { role_epoch: 1, seq: generation });
        let bundle = &self.bundles[release as usize - 1];
        let active = Some(Running { release, statement_sha256: bundle.digest.0 });
        let (previous, trial, floor, standing) = (None, None, release, Standing::default());
        let stream = bundle.stream.clone();
        said.streams =
            vec![StreamReport { stream, active, previous, trial, floor, standing, held: None, sandbox: None }];
        let committed = self.step(Event::ReportReceived(said));
        committed.effects.iter().filter_map(|effect| self.say(effect)).collect::<Vec<_>>().join(", ")
    }

    fn forgotten(&self) -> Vec<&str> {
        let all = ["a", "b", "c"];
        all.into_iter().filter(|id| self.bridge.devices()[&device(id)].forgotten.is_some()).collect()
    }
}

#[test]
fn nobody_is_told_anything_before_it_was_heard_and_everybody_keeps_what_it_runs() {
    let mut bench = copied(&["start 2 0 600 1 100%", "verdict a 2 2 confirmed"], |_| false);
    assert_eq!(bench.forgotten(), ["a", "b", "c"]);
    let said = bench.happen("connect forgotten").join(", ");
    assert!(!said.contains("install"), "{said}");
    assert_eq!(bench.happen("hello a 7"), [""; 0]);
    // Release 2 came to it after the copy.
    assert_eq!(bench.runs("a", 8, 3, 2), format!("a {}: install 2", THEN));
    assert_eq!(bench.runs("b", 8, 2, 1), format!("b {}: install 1", THEN));
    assert_eq!(bench.forgotten(), ["c"]);
    // Nor is it in a rollout before; whoever was heard is.
    let said = bench.happen("start 3 0 600 100%").join(", ");
    assert_eq!(said, format!("publish 3, a {0}: install 3, b {0}: install 3, started 2", THEN + 1));
}

#[test]
fn what_a_device_has_and_land_does_not_keeps_it_until_that_comes_again() {
    let mut bench = copied(&[], |record| matches!(record, Record::Release(release) if release.release == 3));
    bench.happen("connect forgotten");
    assert_eq!(bench.runs("c", 8, 9, 3), "");
    let c = &bench.bridge.devices()[&device("c")];
    let what = &c.alarm.as_ref().unwrap().what;
    assert!(what.starts_with("it has what land has forgotten, digits release 3 ("), "{what}");
    assert_eq!(bench.happen("push 3"), [format!("c {}: install 3", THEN)]);
    assert_eq!(bench.forgotten(), ["a", "b"]);
    // So does a root that is newer than land's.
    let Event::ReportReceived(mut said) = report("b", 1, 8, None) else { panic!("a report") };
    said.root_version = 2;
    bench.step(Event::ReportReceived(said)).answer.unwrap();
    let b = &bench.bridge.devices()[&device("b")];
    assert!(b.alarm.as_ref().unwrap().what.contains("root 2"), "{:?}", b.alarm);
}

#[test]
fn a_rollout_that_was_under_way_waits_for_a_person_and_one_that_had_ended_has_ended() {
    let mut bench = fleet(&[("start 1 0 600 1 100%", "publish 1, a 2: install 1, started 1")]);
    bench.saved = put_back(bench.saved.clone(), 1_700_000_000_000, THEN);
    bench.unix = THEN + 1_000;
    bench.happen("restart");
    let rollout = &bench.bridge.rollouts()[&1];
    let said = format!("{:?}", rollout.phase);
    assert!(
        said.contains("land was put back from a copy of 2023-11-14T22:13:20Z") && said.contains("wave: 0"),
        "{said}"
    );
    // It goes on with whoever was heard.
    bench.runs("a", 8, 2, 1);
    bench.runs("c", 8, 1, 1);
    bench
        .step(Event::RolloutTurned { rollout: 1, by: "anna".into(), since: 0, wish: bridge_core::Wish::Resume })
        .answer
        .unwrap();
    assert_eq!(bench.phase(1), "Rolling");
    assert_eq!(bench.bridge.rollouts()[&1].hit(), 1);
    let mut ended = copied(&[], |_| false);
    ended.happen("restart");
    assert_eq!(ended.phase(1), "Completed");
}

#[test]
fn a_person_lets_what_land_knows_count_and_that_is_the_way_out() {
    let mut bench = copied(&[], |record| matches!(record, Record::Release(release) if release.release == 3));
    bench.happen("connect forgotten");
    assert_eq!(bench.happen("approve c"), [""; 0], "not before it was heard");
    assert_eq!(bench.runs("c", 8, 9, 3), "");
    assert_eq!(bench.happen("approve c"), [format!("c {THEN}: install 1")]);
    assert_eq!(bench.bridge.devices()[&device("c")].alarm, None);
}

/// A land that had said no beacon yet is put back after it said some.
#[test]
fn numbers_go_on_from_the_time_also_where_the_copy_knows_none() {
    assert!(put_back([], 1, THEN).contains(&Record::Beacons { reserved: THEN }));
    let known = put_back([Record::Beacons { reserved: THEN + 7 }], 1, THEN);
    assert_eq!(known.last_chunk(), Some(&[Record::Beacons { reserved: THEN + 7 }, Record::PutBack { at: THEN }]));
}

#[test]
fn numbers_go_on_from_the_time_also_when_a_copy_is_put_back_twice() {
    let bench = copied(&[], |_| false);
    // The second copy is of a land that had heard nobody yet.
    let again = put_back(bench.saved.clone(), THEN, THEN + 5_000);
    let bridge = Bridge::restore(FLEET.parse().unwrap(), again).unwrap();
    let a = &bridge.devices()[&device("a")];
    assert_eq!((a.generation, a.commands, a.forgotten), (THEN + 5_000, THEN + 5_000, Some(2)));
    // Whoever enrols may be somebody whom land has forgotten, with numbers of its own.
    let mut bench = bench;
    assert_eq!(bench.happen("enrol d"), [""; 0]);
    assert_eq!(bench.runs("d", 1, 40, 2), format!("d {}: install 2", THEN + 1));
    // So may one that leaves and comes again: it is not told to drop what it runs.
    assert_eq!(bench.happen("retire b").join(", "), "end b, clear b");
    assert_eq!(bench.happen("enrol b B"), [""; 0]);
    assert_eq!(bench.runs("b", 9, 3, 2).split(": ").last(), Some("install 2"));
}

#[test]
fn whoever_got_the_release_after_the_copy_has_it_and_can_be_taken_back() {
    let mut bench = fleet(&[
        ("start 1 0 600 100%", "publish 1, a 2: install 1, b 2: install 1, c 2: install 1, started 1"),
        ("verdict a 1 1 confirmed", ""),
        ("verdict b 1 1 confirmed", ""),
        ("verdict c 1 1 confirmed", "clear 1"),
        ("start 2 9 600 1 100%", "publish 2, a 3: install 2, started 2"),
    ]);
    let copy = put_back(bench.saved.clone(), bench.unix, THEN);
    bench.happen("verdict a 2 2 confirmed");
    bench.saved = copy;
    bench.unix = THEN + 1_000;
    bench.happen("restart");
    // b has it, and land does not know; c went on to release 3.
    for (id, generation, release) in [("a", 3, 2), ("b", 3, 2), ("c", 4, 3)] {
        bench.runs(id, 8, generation, release);
    }
    let members = &bench.bridge.rollouts()[&2].members;
    assert_eq!(members.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let wish = bridge_core::Wish::Abort { keep: false };
    let said = bench.step(Event::RolloutTurned { rollout: 2, by: "anna".into(), since: 0, wish });
    let said: Vec<String> = said.effects.iter().filter_map(|effect| bench.say(effect)).collect();
    assert!(said.iter().any(|said| said.starts_with("b ") && said.ends_with("rollback 1")), "{said:?}");
    assert!(!said.iter().any(|said| said.starts_with("c ")), "{said:?}");
}
