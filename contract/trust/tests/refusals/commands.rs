//! Commands: who may give them, to whom, and for how long they count.

use crate::signer::*;
use crate::{Case, case, taken};
use petrel_trust::*;
use serde_json::{Value, json as value};

/// What becomes of an edited command that `keys` signed, at `up` of a device that said hello at its start.
fn commanded(trust: &mut Trust, up: u64, edit: &dyn Fn(&mut Value), keys: &[u8]) -> Result<Request, Refusal> {
    let bytes = edited_and_sealed(PayloadKind::Command, &command(), edit, keys);
    unchanged(trust, |t| {
        let command = t.verify_command(&bytes)?;
        t.take_command(&command, up)?;
        Request::read(&command.request)
    })?;
    let command = trust.verify_command(&bytes).expect("it was believed");
    Request::read(&command.request)
}

fn samples(count: u64, bytes: u64) -> Value {
    let (stream, by, approved) = ("digits", "anna", "bert");
    value!({"what": "samples", "stream": stream, "request": 1, "count": count, "bytes": bytes, "by": by, "approved": approved})
}

pub(crate) fn cases() -> Vec<Case> {
    let given = |up: u64, edit: &dyn Fn(&mut Value)| commanded(&mut trust(), up, edit, &[DIRECTOR]);
    let signed = |keys: &[u8]| commanded(&mut trust(), UP, &|_| {}, keys);
    let asked = |request: Value| given(UP, &|c| c["request"] = request.clone());
    let mut cases = vec![
        taken("COMMAND", "in time", given(UP, &|_| {})),
        case("COMMAND", "by the beacon's key", Code::Role, signed(&[BEACON])),
        case("COMMAND", "by a stranger", Code::Threshold, signed(&[STRANGER])),
        case("COMMAND", "for another device", Code::Device, given(UP, &|c| c["device_id"] = "rpi-2".into())),
        case("COMMAND", "for another fleet", Code::Fleet, given(UP, &|c| c["fleet"] = "other".into())),
        case("COMMAND", "of another epoch", Code::Replay, given(UP, &|c| c["role_epoch"] = 2.into())),
        case("COMMAND", "to an earlier hello", Code::Replay, given(UP, &|c| c["nonce"] = "0000".into())),
        case("COMMAND", "with a nonce without end", Code::Limit, given(UP, &|c| c["nonce"] = "0".repeat(129).into())),
        case("COMMAND", "with a field that nobody knows", Code::Parse, given(UP, &|c| c["x"] = 1.into())),
        case("VERSION", "a command of spec 2", Code::Version, given(UP, &|c| c["spec"] = 2.into())),
        case("COMMAND", "an assignment in its place", Code::Type, trust().verify_command(&assignment_bytes())),
        case("COMMAND", "48 KiB and a byte", Code::Limit, trust().verify_command(&vec![b' '; MAX_COMMAND_BYTES + 1])),
        // Two minutes after the hello, by the device's own clock.
        taken("COMMAND", "at its deadline, the time not known", given(120_999, &|_| {})),
        case("COMMAND", "after it, the time not known", Code::Expired, given(121_000, &|_| {})),
        case(
            "COMMAND",
            "with a deadline before the hello",
            Code::Expired,
            given(UP, &|c| c["heard"] = "2026-01-01T00:00:00Z".into()),
        ),
    ];
    for (how, request) in [
        ("for what nobody knows yet", value!({"what": "dance", "with": 3})),
        ("for nothing", value!({})),
        ("for no word", value!("report")),
        ("with more than it takes", value!({"what": "report", "now": true})),
        ("with less than it takes", value!({"what": "restart"})),
        ("for a level that is none", value!({"what": "log-level", "level": "loud", "for_s": 60})),
        ("for no samples", samples(0, 1)),
        ("for more samples than may be", samples(MAX_SAMPLES + 1, 1)),
        ("for samples without a byte", samples(1, 0)),
        ("for more bytes of samples than may be", samples(1, MAX_SAMPLES_BYTES + 1)),
        ("for a level for no time", value!({"what": "log-level", "level": "debug", "for_s": 0})),
        (
            "for a level for more than a day",
            value!({"what": "log-level", "level": "debug", "for_s": MAX_LOG_LEVEL_S + 1}),
        ),
    ] {
        cases.push(case("COMMAND", how, Code::Request, asked(request)));
    }
    for request in [
        Request::Diagnostics {},
        Request::Restart { stream: "digits".into() },
        Request::Report {},
        Request::LogLevel { level: LogLevel::Trace, for_s: number(MAX_LOG_LEVEL_S) },
        Request::Samples {
            stream: "digits".into(),
            request: number(1),
            count: number(MAX_SAMPLES),
            bytes: number(MAX_SAMPLES_BYTES),
            by: "anna".into(),
            approved: "bert".into(),
        },
    ] {
        let said = serde_json::to_value(&request).expect("plain data");
        assert_eq!(asked(said).expect("a request that is known"), request);
    }
    cases.extend(numbered());
    cases.extend(in_its_time());
    cases
}

/// Each is taken once, and a newer hello begins anew.
fn numbered() -> Vec<Case> {
    let mut t = trust();
    let number = |seq: u64| move |c: &mut Value| c["seq"] = seq.into();
    let mut cases = Vec::new();
    commanded(&mut t, UP, &number(7), &[DIRECTOR]).expect("the first");
    cases.push(case("COMMAND", "once more", Code::Replay, commanded(&mut t, UP, &number(7), &[DIRECTOR])));
    cases.push(case("COMMAND", "an earlier one", Code::Replay, commanded(&mut t, UP, &number(6), &[DIRECTOR])));
    cases.push(taken("COMMAND", "the next one", commanded(&mut t, UP, &number(8), &[DIRECTOR])));
    // What was refused by its content was there all the same.
    let late = |c: &mut Value| (c["seq"], c["deadline"]) = (9.into(), "2020-01-01T00:00:00Z".into());
    cases.push(case("COMMAND", "after its deadline", Code::Expired, commanded(&mut t, UP, &late, &[DIRECTOR])));
    cases.push(case("COMMAND", "the same in time", Code::Replay, commanded(&mut t, UP, &number(9), &[DIRECTOR])));
    t.expect_nonce("another", UP);
    cases.push(case("COMMAND", "after another hello", Code::Replay, commanded(&mut t, UP, &number(10), &[DIRECTOR])));
    let renewed = |c: &mut Value| (c["seq"], c["nonce"]) = (1.into(), "another".into());
    cases.push(taken("COMMAND", "to another hello", commanded(&mut t, UP + 59_000, &renewed, &[DIRECTOR])));
    cases
}

/// What the device believes besides decides too.
fn in_its_time() -> Vec<Case> {
    let mut t = trust();
    let honest = |t: &mut Trust, up| commanded(t, up, &|_| {}, &[DIRECTOR]);
    beaconed(&mut t, 9, |b| b["now"] = value!(moment(T0 + 180))).expect("a beacon");
    let mut cases = vec![case("COMMAND", "when it is later, for certain", Code::Expired, honest(&mut t, UP))];
    let mut t = trust();
    revoked(&mut t, 1, |r| r["devices"] = value!([{"device_id": DEVICE}])).expect("a revocation");
    cases.push(case("COMMAND", "to a device that was thrown out", Code::RevokedDevice, honest(&mut t, UP)));
    let mut t = trust();
    revoked(&mut t, 1, |r| r["keys"] = value!([{"keyid": id(DIRECTOR), "from": "all"}])).expect("a revocation");
    cases.push(case("COMMAND", "by a director who was revoked", Code::RevokedKey, honest(&mut t, UP)));
    cases
}
