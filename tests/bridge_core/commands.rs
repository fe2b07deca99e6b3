//! Commands: whom land asks, and what it signs.

use super::{Bench, device, fleet};
use bridge_core::{Answer, Effect, Event, Record};
use trust::Request;

fn give(bench: &mut Bench, good_for: u64) -> Vec<String> {
    let request = Request::Restart { stream: "digits".into() };
    let committed = bench.step(Event::CommandRequested { device: device("a"), request, good_for });
    let answer = match committed.answer {
        Ok(Answer::Commanded { seq, draft: Some(_) }) => format!("command {seq}"),
        Ok(answer) => format!("{answer:?}"),
        Err(rejection) => format!("{}: {rejection}", rejection.code()),
    };
    let signed = committed.effects.iter().filter_map(|effect| match effect {
        Effect::PublishCommand(draft) => {
            let (issued, deadline) = (draft.issued - bench.unix, draft.deadline - bench.unix);
            Some(format!("sign {} {} {issued} {deadline} heard {}", draft.seq, draft.nonce, bench.unix - draft.heard))
        }
        _ => None,
    });
    signed.chain([answer]).collect()
}

#[test]
fn a_command_answers_the_latest_hello_and_is_numbered() {
    let mut bench = fleet(&[]);
    let unix = bench.unix;
    bench.happen("hello a 100 a first");
    bench.unix += 5_000;
    assert_eq!(give(&mut bench, 30_000), ["sign 1 first 0 30000 heard 5000", "command 1"]);
    let kept: Vec<_> = bench.saved.iter().filter(|record| matches!(record, Record::Command(_))).collect();
    assert!(
        matches!(&kept[..], [Record::Command(draft)] if draft.seq == 1 && draft.issued == unix + 5_000),
        "{kept:?}"
    );
    // An old hello, which a broker may repeat, is none to answer.
    bench.happen("hello a 99 a replayed");
    assert_eq!(give(&mut bench, 30_000)[0], "sign 2 first 0 30000 heard 5000");
    bench.happen("hello a 101 a second");
    assert_eq!(give(&mut bench, 1_000)[0], "sign 3 second 0 1000 heard 0");
    // What was counted is remembered.
    bench.happen("restart");
    assert_eq!(give(&mut bench, 3_600_000)[0], "sign 4 second 0 3600000 heard 0");
    bench.happen("retire a");
    bench.happen("enrol a k2");
    bench.happen("hello a 1 k2 third");
    assert_eq!(give(&mut bench, 1_000)[0], "sign 5 third 0 1000 heard 0");
}

#[test]
fn a_device_that_is_not_there_is_not_asked() {
    let mut bench = fleet(&[]);
    bench.happen("gone a");
    assert!(give(&mut bench, 1_000)[0].starts_with("conflict: device `a` is offline"));
    bench.happen("here a");
    assert_eq!(give(&mut bench, 999), ["invalid: a command counts for 1 to 3600 seconds"]);
    assert_eq!(give(&mut bench, 3_600_001), ["invalid: a command counts for 1 to 3600 seconds"]);
    bench.happen("revoke a");
    assert_eq!(give(&mut bench, 1_000), ["conflict: device `a` is revoked"]);
    let nobody = Event::CommandRequested { device: device("z"), request: Request::Report {}, good_for: 1_000 };
    assert_eq!(bench.step(nobody).answer.unwrap_err().code(), "not_found");
}
