//! Requests for inputs: who approves them, which device is asked when, and what land makes of the answers.

use super::{Bench, HOUR, device, fleet};
use bridge_core::{Asked, Effect, Event, Record, Said, SampleState, SampleTurn, SampleWish, put_back};
use protocol::CommandOutcome;
use trust::Request;

fn wish(devices: &[&str]) -> SampleWish {
    SampleWish {
        stream: "digits".parse().unwrap(),
        devices: devices.iter().map(|id| device(id)).collect(),
        count: 20,
        bytes: 65_536,
        reason: "too many eights".into(),
        good_for: 24 * HOUR,
        by: "anna".into(),
    }
}

/// The answer, and each device that is asked: `ask DEVICE SEQ NONCE`.
fn happens(bench: &mut Bench, event: Event) -> Vec<String> {
    let committed = bench.step(event);
    let asked = committed.effects.iter().filter_map(|effect| match effect {
        Effect::PublishCommand(draft) => {
            let Request::Samples { request, count, bytes, by, approved, .. } = &draft.request else {
                panic!("{draft:?}");
            };
            assert_eq!((count.get(), bytes.get(), by.as_str(), approved.as_str()), (20, 65_536, "anna", "bert"));
            Some(format!("ask {} {} {} for {request}", draft.device, draft.seq, draft.nonce))
        }
        _ => None,
    });
    let answer = match &committed.answer {
        Ok(answer) => format!("{answer:?}"),
        Err(rejection) => format!("{}: {rejection}", rejection.code()),
    };
    asked.chain([answer]).collect()
}

fn wants(bench: &mut Bench, wish: SampleWish) -> String {
    happens(bench, Event::SamplesWanted(Box::new(wish))).pop().unwrap()
}

fn turn(bench: &mut Bench, by: &str, since: u64, turn: SampleTurn) -> Vec<String> {
    happens(bench, Event::SamplesTurned { request: 1, by: by.into(), since, turn })
}

fn answered(bench: &mut Bench, id: &str, seq: u64, outcome: CommandOutcome, said: Said) {
    bench.step(Event::CommandAnswered { device: device(id), seq, outcome, said }).answer.unwrap();
}

/// What became of request 1 at a device.
fn asked(bench: &Bench, id: &str) -> Asked {
    bench.bridge.sample_requests()[&1].devices[&device(id)].clone()
}

fn state(bench: &Bench) -> SampleState {
    bench.bridge.sample_requests()[&1].state(bench.unix)
}

#[test]
fn somebody_else_approves_and_then_whoever_is_there_is_asked() {
    let mut bench = fleet(&[]);
    let now = bench.unix;
    bench.happen("hello a 100 a first");
    bench.happen("gone b");
    assert_eq!(wants(&mut bench, wish(&["a", "b"])), "Wanted { request: 1 }");
    assert_eq!(state(&bench), SampleState::Approval);
    bench.happen("hello a 101 a second");
    assert_eq!(asked(&bench, "a"), Asked::No, "nobody approved it");
    assert_eq!(
        turn(&mut bench, "anna", 0, SampleTurn::Approve),
        ["conflict: request 1 is of `anna`: somebody else must approve it"]
    );
    assert_eq!(
        turn(&mut bench, "bert", now + 1, SampleTurn::Approve),
        ["conflict: `bert` was let in after request 1 was made: somebody who was there before must approve it"]
    );
    assert_eq!(turn(&mut bench, "bert", 0, SampleTurn::Approve), ["ask a 1 second for 1", "Done"]);
    assert_eq!(
        turn(&mut bench, "carl", 0, SampleTurn::Approve),
        ["conflict: request 1 is open: it cannot be asked to approve"]
    );
    assert_eq!(asked(&bench, "a"), Asked::By(1));

    // What it does not say with one hello it is asked with the next one, also after a restart of land.
    bench.happen("restart");
    bench.happen("hello a 102 a third");
    assert_eq!(asked(&bench, "a"), Asked::By(2));
    answered(&mut bench, "a", 1, CommandOutcome::Done, Said { samples: 9, ..Said::default() });
    assert_eq!(asked(&bench, "a"), Asked::By(2), "that one counts no more");
    answered(&mut bench, "a", 2, CommandOutcome::Done, Said { samples: 12, ..Said::default() });
    assert_eq!(asked(&bench, "a"), Asked::Gave(12));
    bench.happen("hello a 103 a fourth");
    assert_eq!(asked(&bench, "a"), Asked::Gave(12), "once");
    let deeds = bench.saved.iter().filter_map(|record| match record {
        Record::Deed(deed) if deed.action == "samples.given" => Some(deed.subject.as_str()),
        _ => None,
    });
    assert_eq!(deeds.collect::<Vec<_>>(), ["1 a: 12 of digits"]);

    // One that comes takes no more commands for a moment, and is asked again; then it keeps nothing.
    bench.happen("hello b 100 b first");
    let rate = Said { code: Some("E_RATE".into()), ..Said::default() };
    answered(&mut bench, "b", 1, CommandOutcome::Refused, rate);
    assert_eq!((asked(&bench, "b"), state(&bench)), (Asked::No, SampleState::Open));
    bench.happen("hello b 101 b second");
    let nothing = Said { detail: Some("it keeps\nnothing".into()), ..Said::default() };
    answered(&mut bench, "b", 2, CommandOutcome::Failed, nothing);
    assert_eq!(asked(&bench, "b"), Asked::Refused("it keeps nothing".into()));
    assert_eq!(state(&bench), SampleState::Answered);
}

#[test]
fn nobody_is_asked_after_its_end() {
    for ends in ["by a person", "by time", "by a copy"] {
        let mut bench = fleet(&[]);
        bench.happen("gone a");
        wants(&mut bench, wish(&["a"]));
        assert_eq!(turn(&mut bench, "bert", 0, SampleTurn::Approve), ["Done"]);
        assert_eq!(state(&bench), SampleState::Open);
        match ends {
            "by a person" => assert_eq!(turn(&mut bench, "anna", 0, SampleTurn::End), ["Done"]),
            "by time" => bench.unix += 24 * HOUR,
            _ => {
                bench.saved = put_back(std::mem::take(&mut bench.saved), bench.unix, bench.unix);
                bench.happen("restart");
            }
        }
        assert_eq!(state(&bench), SampleState::Over, "{ends}");
        bench.happen("hello a 100 a first");
        assert_eq!(asked(&bench, "a"), Asked::No, "{ends}");
    }
}

#[test]
fn what_makes_no_sense_is_turned_down() {
    let mut bench = fleet(&[]);
    let ask = |change: &dyn Fn(&mut SampleWish)| {
        let mut wish = wish(&["a"]);
        change(&mut wish);
        wish
    };
    for (wish, why) in [
        (ask(&|w| w.devices.clear()), "invalid: 1 to 100 devices"),
        (ask(&|w| w.devices.extend((0..100).map(|n| device(&format!("d{n}"))))), "invalid: 1 to 100 devices"),
        (ask(&|w| w.count = 0), "invalid: a device gives"),
        (ask(&|w| w.count = 201), "invalid: a device gives"),
        (ask(&|w| w.bytes = 131_073), "invalid: a device gives"),
        (ask(&|w| w.good_for = 59_999), "invalid: a request is open"),
        (ask(&|w| w.good_for = 31 * 24 * HOUR), "invalid: a request is open"),
        (ask(&|w| w.reason = "  ".into()), "invalid: say what for"),
        (ask(&|w| w.reason = "a\u{1b}[2Jb".into()), "invalid: say what for"),
        (ask(&|w| w.devices.extend([device("z")])), "not_found: "),
    ] {
        let answer = wants(&mut bench, wish);
        assert!(answer.starts_with(why), "{answer}");
    }
    assert!(turn(&mut bench, "bert", 0, SampleTurn::End)[0].starts_with("not_found: "));
    // A command alone is no approval.
    let request = Request::Samples {
        stream: "digits".into(),
        request: 1.into(),
        count: 1.into(),
        bytes: 1.into(),
        by: "anna".into(),
        approved: "anna".into(),
    };
    let event = Event::CommandRequested { device: device("a"), request, good_for: 1_000 };
    assert!(
        happens(&mut bench, event)[0].starts_with("invalid: inputs are given for a request that somebody approved")
    );
    // And there are only so many at a time.
    (0..100).for_each(|_| drop(wants(&mut bench, wish(&["a"]))));
    assert!(wants(&mut bench, wish(&["a"])).starts_with("conflict: 100 requests are open"));
}
