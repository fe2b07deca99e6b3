//! The chain of roots: gaps, forks, one threshold without the other, expiry, and the way back.

use crate::signer::*;
use crate::{Case, case, taken};
use petrel_trust::*;
use serde_json::{Value, json as value};

/// Another trio of root keys.
const NEW: [u8; 3] = [4, 5, 6];

fn hold(root: &mut Value, role: &str, keys: &[u8], threshold: u64) {
    for key in keys {
        root["keys"][id(*key)] = value!({"scheme": "ed25519", "public": hex::encode(public(*key))});
    }
    root["roles"][role]["keyids"] = keys.iter().map(|k| id(*k)).collect();
    root["roles"][role]["threshold"] = threshold.into();
}

fn step(edit: impl FnOnce(&mut Value), keys: &[u8]) -> Result<(), Refusal> {
    let mut trust = trust();
    let bytes = root_after(trust.root(), edit, keys);
    unchanged(&mut trust, |t| t.accept_root(&bytes, UP))
}

pub(crate) fn cases() -> Vec<Case> {
    let renewed = |r: &mut Value| hold(r, "root", &NEW, 2);
    let both = [1, 2, 4, 5];
    let mut cases = vec![
        taken("T13", "the next root", step(|_| {}, &[1, 2])),
        taken("T13", "new keys, signed by old and new", step(renewed, &both)),
        case("T10", "version 3 without 2", Code::RootGap, step(|r| r["version"] = 3.into(), &[1, 2])),
        case("T10", "the largest version", Code::RootGap, step(|r| r["version"] = U53::MAX.into(), &[1, 2])),
        case("T11", "signed by the old only", Code::RootCont, step(renewed, &[1, 2])),
        case("T11", "signed by the new only", Code::RootCont, step(renewed, &[4, 5])),
        case("T11", "one old too few", Code::RootCont, step(renewed, &[1, 4, 5])),
        case("T11", "one new too few", Code::RootCont, step(renewed, &[1, 2, 4])),
        case("T11", "one key of both for two", Code::RootCont, step(|_| {}, &[1, 1])),
        case("T11", "by strangers", Code::RootCont, step(|_| {}, &[STRANGER, STRANGER + 1])),
        case("T11", "by the director", Code::RootCont, step(|_| {}, &[DIRECTOR])),
        case(
            "T17",
            "after another root",
            Code::RootFork,
            step(|r| r["prev_sha256"] = Digest::of(b"").to_string().into(), &[1, 2]),
        ),
        case("T18", "of another fleet", Code::Fleet, step(|r| r["fleet"] = "other".into(), &[1, 2])),
        case(
            "T16",
            "an epoch that falls",
            Code::RootSchema,
            step(|r| r["roles"]["director"]["role_epoch"] = 2.into(), &[1, 2]),
        ),
        case(
            "T05",
            "with a weak key",
            Code::KeyWeak,
            step(
                |r| {
                    r["keys"][key_id(&[0; 32])] = value!({"scheme": "ed25519", "public": hex::encode([0; 32])});
                },
                &[1, 2],
            ),
        ),
        case(
            "T04",
            "with a lie about a key",
            Code::KeyId,
            step(
                |r| {
                    r["keys"][id(STRANGER)] = r["keys"][id(1)].clone();
                },
                &[1, 2],
            ),
        ),
    ];
    cases.extend(rollbacks());
    cases.extend(expiry());
    cases.extend(long_chains());
    cases
}

fn rollbacks() -> Vec<Case> {
    let mut trust = trust();
    let first = trust.root().clone();
    let two = root_after(&first, |_| {}, &[1, 2]);
    let fork = root_after(&first, |r| r["expires"] = "2032-01-01T00:00:00Z".into(), &[1, 2]);
    unchanged(&mut trust, |t| t.accept_root(&two, UP)).expect("the next root");
    let three_of_the_fork = {
        let other = next_root(&first, &fork).expect("holds by itself");
        root_after(&other, |_| {}, &[1, 2])
    };
    let again = trust.accept_root(&two, UP).expect("the same root again");
    assert!(matches!(again, Accepted::Again(_)), "the root in use is known");
    let reset = root_after(trust.root(), |r| r["clock_reset"] = 1.into(), &[1, 2]);
    let mut with_reset = trust.clone();
    with_reset.accept_root(&reset, UP).expect("a reset");
    let without = root_after(with_reset.root(), |r| drop(r.as_object_mut().unwrap().remove("clock_reset")), &[1, 2]);
    let mut offer = |bytes: &[u8]| unchanged(&mut trust, |t| t.accept_root(bytes, UP));
    vec![
        case("T12", "version 1 after 2", Code::RollbackRoot, offer(&root_bytes())),
        case("T12", "another version 2 after 2", Code::RollbackRoot, offer(&fork)),
        case("T17", "version 3 after the other version 2", Code::RootFork, offer(&three_of_the_fork)),
        case(
            "T16",
            "clock_reset that falls",
            Code::RootSchema,
            unchanged(&mut with_reset, |t| t.accept_root(&without, UP)),
        ),
    ]
}

fn expiry() -> Vec<Case> {
    let short = |r: &mut Value| r["expires"] = "2023-11-20T00:00:00Z".into(); // five days after it was issued
    let mut trust = trust_under(short);
    let week = 7 * 24 * 3_600 * 1_000;
    assert_eq!(trust.clock_state(UP), ClockState::Unset);
    assert_eq!(trust.clock_state(week), ClockState::Expired);
    let assignment = assignment_bytes();
    let late = unchanged(&mut trust, |t| t.accept_assignment(&assignment, week));
    let glass = sealed(PayloadKind::Breakglass, &json(&breakglass()), &BREAKGLASS);
    let late_glass = unchanged(&mut trust, |t| t.accept_breakglass(&glass, week));
    let bundle = bundle(|_| {});
    let judged = trust.judge(&bundle.offer(), week).refusal().cloned().map_or(Ok(()), Err);
    let newer = root_after(trust.root(), |r| r["expires"] = "2033-01-01T00:00:00Z".into(), &[1, 2]);
    let next = unchanged(&mut trust, |t| t.accept_root(&newer, week));
    let then = unchanged(&mut trust, |t| t.accept_assignment(&assignment, week));
    vec![
        case("T14", "an assignment under an expired root", Code::ExpiredRoot, late),
        case("T14", "a breakglass under an expired root", Code::ExpiredRoot, late_glass),
        case("T14", "a bundle under an expired root", Code::ExpiredRoot, judged),
        taken("T14", "a newer root after an expired one", next),
        taken("T14", "an assignment after that", then),
    ]
}

fn long_chains() -> Vec<Case> {
    let mut trust = trust();
    let mut last = trust.root().clone();
    let (mut steps, mut expired) = (Vec::new(), 0);
    for n in 0..1_025_u32 {
        // Keys change hands all the time; every root but the last has expired long before it is read.
        let keys = if n % 2 == 0 { [4, 5, 1, 2] } else { [1, 2, 4, 5] };
        let short = n != 19 && n < 100;
        expired += usize::from(short);
        let end = if short { "2023-11-14T23:00:00Z" } else { "2033-01-01T00:00:00Z" };
        let bytes = root_after(
            &last,
            |r| {
                hold(r, "root", if n % 2 == 0 { &NEW } else { &ROOTS }, 2);
                r["expires"] = end.into();
            },
            &keys,
        );
        last = next_root(&last, &bytes).expect("the chain is honest");
        steps.push(bytes);
    }
    let hour = 3_600_000;
    let twenty = steps[..20].iter().try_for_each(|b| unchanged(&mut trust, |t| t.accept_root(b, hour)));
    assert_eq!((trust.counters().root_version(), expired), (21, 99));
    let valid = unchanged(&mut trust, |t| t.accept_assignment(&assignment_bytes(), hour));
    let rest = steps[20..1_024].iter().try_for_each(|b| trust.accept_root(b, hour).map(drop));
    let one_more = unchanged(&mut trust, |t| t.accept_root(&steps[1_024], hour));
    let (reached, taken_steps, why) = catch_up(self::trusted(), steps.iter().map(Vec::as_slice));
    assert_eq!((reached.version.get(), taken_steps), (1_025, 1_024));
    let counters = trust.counters().clone();
    let envelope = &steps[1_023];
    let mut rebooted = Trust::open(device(), FLEET, counters, envelope, None).expect("its own root");
    vec![
        taken("T13", "20 rotations missed, 19 of them expired", twenty),
        taken("T13", "an assignment after them", valid),
        taken("T13", "1,024 roots in one boot", rest),
        case("T15", "the 1,025th root in one boot", Code::Limit, one_more),
        case("T15", "a chain of 1,025", Code::Limit, why.map_or(Ok(()), Err)),
        taken("T15", "the 1,025th root after a reboot", unchanged(&mut rebooted, |t| t.accept_root(&steps[1_024], UP))),
        case(
            "T15",
            "a root of 64 KiB and a byte",
            Code::Limit,
            unchanged(&mut rebooted, |t| t.accept_root(&vec![b' '; MAX_ROOT_BYTES + 1], UP)),
        ),
    ]
}
