//! Requests for inputs: who approves them, which device is asked when, and what land makes of the answers.

use super::{Bench, HOUR, device, fleet};
use bridge_core::{Asked, Effect, Event, Now, Record, Said, SampleState, SampleTurn, SampleWish, put_back};
use protocol::{Cell, Chosen, CommandOutcome, CommandResult, Sample, SampledInput, encode_json};
use trust::Request;
use world::signer::FLEET;

/// How often a device is asked that gave nothing.
const AGAIN: u64 = 10 * 60_000;

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

fn sample(input: SampledInput) -> Sample {
    Sample { at: 1, release: 1, id: None, chosen: Chosen::Drawn, input, answer: Vec::new() }
}

fn row(value: &str) -> Sample {
    sample(SampledInput::Fields(vec![Cell { name: "a".into(), value: value.into() }]))
}

/// What land keeps of these, when a device gives them for a command.
fn kept(bench: &Bench, id: &str, seq: u64, samples: &[Sample]) -> Option<(u64, Vec<Sample>)> {
    let done = CommandResult::done(FLEET.parse().unwrap(), device(id), "nonce".into(), seq);
    let mut result = CommandResult { samples: Some(samples.to_vec()), ..done };
    let kept = bench.bridge.samples_to_keep(Now { unix: bench.unix }, &mut result);
    assert_eq!(result.samples, None, "they are kept apart, or not at all");
    kept
}

/// What happens when so much time has gone.
fn ticks(bench: &mut Bench, time: u64) -> Vec<String> {
    bench.unix += time;
    happens(bench, Event::DeadlineReached)
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
    assert_eq!(asked(&bench, "a"), Asked::By { seq: 1, until: now + AGAIN });
    // Nor does another request ask it once more, or its end.
    wants(&mut bench, wish(&["a"]));
    let other = |turn| Event::SamplesTurned { request: 2, by: "bert".into(), since: 0, turn };
    assert_eq!(happens(&mut bench, other(SampleTurn::End)), ["Done"]);
    let told = Said { samples: 12, ..Said::default() };
    assert_eq!(kept(&bench, "a", 1, &[row("1")]), Some((1, vec![row("1")])));
    assert_eq!([kept(&bench, "a", 2, &[row("1")]), kept(&bench, "b", 1, &[row("1")])], [None, None], "nobody asked");
    answered(&mut bench, "a", 7, CommandOutcome::Done, told.clone());
    assert_eq!(asked(&bench, "a"), Asked::By { seq: 1, until: now + AGAIN }, "that was another command");
    bench.happen("restart");
    answered(&mut bench, "a", 1, CommandOutcome::Done, told.clone());
    answered(&mut bench, "a", 1, CommandOutcome::Failed, told);
    assert_eq!(asked(&bench, "a"), Asked::Gave(12), "the first word counts");
    assert_eq!(ticks(&mut bench, AGAIN), ["Done"], "once");
    let deeds = bench.saved.iter().filter_map(|record| match record {
        Record::Deed(deed) if deed.action == "samples.given" => Some(deed.subject.as_str()),
        _ => None,
    });
    assert_eq!(deeds.collect::<Vec<_>>(), ["1 a: 12 of digits"]);
}

#[test]
fn a_device_is_asked_again_until_it_gave_something() {
    let mut bench = fleet(&[]);
    bench.happen("gone a");
    wants(&mut bench, wish(&["a"]));
    assert_eq!(turn(&mut bench, "bert", 0, SampleTurn::Approve), ["Done"]);
    // One that comes has time to keep something first.
    bench.unix += AGAIN / 2;
    bench.happen("hello a 100 a first");
    assert_eq!(ticks(&mut bench, AGAIN / 2), ["Done"]);
    assert_eq!(ticks(&mut bench, AGAIN), ["ask a 1 first for 1", "Done"]);
    answered(&mut bench, "a", 1, CommandOutcome::Done, Said::default());
    assert_eq!(asked(&bench, "a"), Asked::No, "it keeps nothing yet");
    // It is silent, has had too many commands, or has a hello by then that the command does not name: another time.
    assert_eq!(ticks(&mut bench, AGAIN), ["ask a 2 first for 1", "Done"]);
    assert_eq!(ticks(&mut bench, AGAIN / 2), ["Done"]);
    bench.happen("restart");
    for (seq, code) in [(3, "E_RATE"), (4, "E_REPLAY"), (5, "E_EXPIRED")] {
        assert_eq!(ticks(&mut bench, AGAIN + 1), [format!("ask a {seq} first for 1"), "Done".to_owned()]);
        let said = Said { code: Some(code.into()), ..Said::default() };
        answered(&mut bench, "a", seq, CommandOutcome::Refused, said);
        assert_eq!((asked(&bench, "a"), state(&bench)), (Asked::No, SampleState::Open), "{code}");
    }
    assert_eq!(ticks(&mut bench, AGAIN), ["ask a 6 first for 1", "Done"]);
    let nothing = Said { detail: Some("it keeps\nno\u{202e}thing".into()), ..Said::default() };
    answered(&mut bench, "a", 6, CommandOutcome::Failed, nothing);
    assert_eq!(asked(&bench, "a"), Asked::Refused("it keeps no thing".into()));
    assert_eq!((state(&bench), ticks(&mut bench, AGAIN)), (SampleState::Answered, vec!["Done".to_owned()]));
    assert!(bench.bridge.deadline().is_none_or(|due| due > bench.unix), "nobody waits for anything");
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
        assert_eq!(ticks(&mut bench, AGAIN), ["Done"], "{ends}");
        assert_eq!(asked(&bench, "a"), Asked::No, "{ends}");
    }
}

#[test]
fn what_comes_after_the_end_is_not_wanted() {
    let mut bench = fleet(&[]);
    bench.happen("hello a 100 a first");
    wants(&mut bench, wish(&["a"]));
    turn(&mut bench, "bert", 0, SampleTurn::Approve);
    turn(&mut bench, "anna", 0, SampleTurn::End);
    assert_eq!(kept(&bench, "a", 1, &[row("1")]), None);
    answered(&mut bench, "a", 1, CommandOutcome::Done, Said { samples: 3, ..Said::default() });
    assert_eq!(state(&bench), SampleState::Over, "an end is an end");
}

#[test]
fn of_an_answer_is_kept_what_was_asked_for() {
    let count = |count: u64, bytes: u64, samples: &[Sample]| {
        let mut bench = fleet(&[]);
        bench.happen("hello a 100 a first");
        wants(&mut bench, SampleWish { count, bytes, ..wish(&["a"]) });
        let event = Event::SamplesTurned { request: 1, by: "bert".into(), since: 0, turn: SampleTurn::Approve };
        bench.step(event).answer.unwrap();
        kept(&bench, "a", 1, samples).map_or_else(Vec::new, |(_, samples)| samples)
    };
    let size = encode_json(&row("1")).len() as u64;
    let rows = ["1", "2", "3"].map(row);
    for (most, bytes, expected) in [(3, 9_999, 3), (2, 9_999, 2), (3, 2 * size, 2), (3, 2 * size - 1, 1), (3, 1, 0)] {
        assert_eq!(count(most, bytes, &rows), rows[..expected], "{most} in {bytes}");
    }
    let picture = |text: &str| sample(SampledInput::Image(text.into()));
    let pictures = ["iVBORw0KGgo=", "/9j/4AAQ", "iVBORw0KGgo", "R0lGODlh", "/9j/<x>="].map(picture);
    assert_eq!(count(9, 9_999, &pictures), pictures[..2], "PNG and JPEG, whole");
}

#[test]
fn what_is_over_for_long_is_forgotten() {
    let mut bench = fleet(&[]);
    for n in 1..=210 {
        assert_eq!(wants(&mut bench, wish(&["a"])), format!("Wanted {{ request: {n} }}"));
        let end = Event::SamplesTurned { request: n, by: "anna".into(), since: 0, turn: SampleTurn::End };
        assert_eq!(happens(&mut bench, end), ["Done"]);
    }
    let known: Vec<u64> = bench.bridge.sample_requests().keys().copied().collect();
    assert_eq!((known.len(), known[0]), (201, 10));
    bench.happen("restart");
    assert_eq!(bench.bridge.sample_requests().keys().copied().collect::<Vec<_>>(), known);
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
        (ask(&|w| w.reason = "a\u{202e}b".into()), "invalid: say what for"),
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
