//! Commands: whom land asks, and what it signs.

use super::{Bench, device, fleet};
use bridge_core::{Answer, Bridge, Device, Effect, Event, FanOutWish, MOST_AT_ONCE, Now, Record};
use std::collections::BTreeMap;
use std::convert::Infallible;
use trust::{LogLevel, Request, U53};

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

fn fan_out(bench: &mut Bench, to: &str, request: Request, good_for: u64) -> Vec<String> {
    let wish = FanOutWish { to: to.parse().unwrap(), request, good_for, by: "anna".into() };
    let committed = bench.step(Event::FanOutRequested(Box::new(wish)));
    let answer = match committed.answer {
        Ok(answer) => format!("{answer:?}"),
        Err(rejection) => format!("{}: {rejection}", rejection.code()),
    };
    let signed = committed.effects.iter().filter_map(|effect| match effect {
        Effect::PublishCommand(d) => Some(format!("sign {} {} of {:?}", d.device, d.seq, d.fan_out)),
        _ => None,
    });
    signed.chain([answer]).collect()
}

#[test]
fn whoever_is_meant_and_there_is_asked_at_once() {
    let mut bench = fleet(&[]);
    let label = |bench: &mut Bench, id: &str| {
        let labels = BTreeMap::from([("site".into(), Some("north".into()))]);
        bench.step(Event::DeviceLabelled { device: device(id), labels }).answer.unwrap();
    };
    for id in ["a", "b", "c"] {
        bench.happen(&format!("hello {id} 1"));
        label(&mut bench, id);
    }
    // Who waits for a person's word is not of the fleet.
    bench.happen("enrol d d pending");
    bench.happen("gone b");
    give(&mut bench, 1_000);
    let report = || Request::Report {};
    let asked = ["sign a 2 of Some(1)", "sign c 1 of Some(1)", "FannedOut { fan_out: 1 }"];
    assert_eq!(fan_out(&mut bench, "site=north or id=d", report(), 1_000), asked);
    let told = &bench.bridge.fan_outs()[&1];
    assert_eq!((told.given, told.left_out, told.by.as_str()), (2, 1, "anna"));
    assert_eq!((told.at, told.deadline), (bench.unix, bench.unix + 1_000));
    bench.happen("restart");
    let level = || Request::LogLevel { level: LogLevel::Debug, for_s: U53::from(60_u32) };
    assert_eq!(fan_out(&mut bench, "id=c", level(), 1_000), ["sign c 2 of Some(2)", "FannedOut { fan_out: 2 }"]);

    // Nothing of what is refused is remembered.
    let saved = bench.saved.len();
    for (to, request, good_for, why) in [
        ("id=z", report(), 1_000, "conflict: no device of the fleet is meant by `id=z`"),
        ("id=d", report(), 1_000, "conflict: no device of the fleet is meant by `id=d`"),
        ("id=b", report(), 1_000, "conflict: none of the 1 devices that `id=b` means is there now"),
        ("id=a", report(), 999, "invalid: a command counts for 1 to 3600 seconds"),
        ("id=a", Request::Diagnostics {}, 1_000, "invalid: diagnostics are large, and asked of one device: of many"),
        ("id=a", Request::Labels { stream: "digits".into(), labels: vec![] }, 1_000, "invalid: labels are of one"),
    ] {
        let said = fan_out(&mut bench, to, request, good_for);
        assert!(said.len() == 1 && said[0].starts_with(why), "{said:?}");
    }
    assert_eq!(bench.saved.len(), saved);
    assert_eq!(fan_out(&mut bench, "id=a", report(), 1_000)[1], "FannedOut { fan_out: 3 }");
}

#[test]
fn the_latest_fan_outs_are_remembered_and_their_numbers_are_not_given_again() {
    let mut bench = fleet(&[]);
    bench.happen("hello a 1");
    for number in 1..=205 {
        bench.unix += 1;
        let said = fan_out(&mut bench, "id=a", Request::Report {}, 1_000);
        assert_eq!(said[1], format!("FannedOut {{ fan_out: {number} }}"));
    }
    let kept: Vec<u64> = bench.bridge.fan_outs().keys().copied().collect();
    assert_eq!(kept, (6..=205).collect::<Vec<_>>());
    bench.happen("restart");
    assert_eq!(bench.bridge.fan_outs().len(), 200);
}

#[test]
fn more_devices_than_land_can_say_something_to_are_not_asked() {
    let mut bench = fleet(&[]);
    bench.happen("hello a 1");
    let one = bench.bridge.devices()[&device("a")].clone();
    let named = |id: String| Device { id: id.parse().unwrap(), ..one.clone() };
    let mut devices: Vec<Record> = bench.saved.clone();
    devices.extend((0..MOST_AT_ONCE).map(|n| Record::Device(Box::new(named(format!("many-{n}"))))));
    bench.bridge = Bridge::restore(world::signer::FLEET.parse().unwrap(), devices.clone()).unwrap();
    bench.saved = devices;
    let ask = |bench: &mut Bench, to: &str| {
        let wish =
            FanOutWish { to: to.parse().unwrap(), request: Request::Report {}, good_for: 1_000, by: "anna".into() };
        let step = bench.bridge.step(Now { unix: bench.unix }, Event::FanOutRequested(Box::new(wish)));
        // What it decides is not looked at again: twenty thousand devices each time.
        let Ok(committed) = step.commit(|_| Ok::<_, Infallible>(()));
        match committed.answer {
            Ok(answer) => format!("{answer:?}"),
            Err(rejection) => format!("{}: {rejection}", rejection.code()),
        }
    };
    let many = "conflict: 20001 devices would be asked, and 20000 are in a minute: name fewer, or wait";
    assert_eq!(ask(&mut bench, "cores >= 1"), many);
    // Those that are not there count for nothing, and those of the last minute do, however many fan-outs they were of.
    for number in 1..=300 {
        assert_eq!(ask(&mut bench, "id in (a, b, many-0)"), format!("FannedOut {{ fan_out: {number} }}"));
    }
    let all_but = "not id in (a, many-0)";
    let lately = "conflict: 19999 devices would be asked, beside the 600 of the last minute, and 20000 are in a minute: name fewer, or wait";
    assert_eq!(ask(&mut bench, all_but), lately);
    bench.unix += 59_999;
    assert_eq!(ask(&mut bench, all_but), lately);
    bench.unix += 1;
    assert_eq!(ask(&mut bench, all_but), "FannedOut { fan_out: 301 }");
    // A clock that was set back holds nobody up.
    bench.unix -= 3_600_000;
    assert_eq!(ask(&mut bench, all_but), "FannedOut { fan_out: 302 }");
}
