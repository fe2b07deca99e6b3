//! What a device's counters decide: revocations, assignments, beacons, breakglass, and its memory.

use crate::signer::*;
use crate::{Case, case, taken};
use petrel_trust::*;
use serde_json::{Value, json as value};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = revocations();
    cases.extend(assignments());
    cases.extend(beacons());
    cases.extend(breakglasses());
    cases.extend(memory());
    cases.extend(lost_root());
    cases
}

fn revocations() -> Vec<Case> {
    let mut t = trust();
    let with = |version, edit: &dyn Fn(&mut Value), keys: &[u8]| {
        edited_and_sealed(PayloadKind::Revocation, &revocation(version), edit, keys)
    };
    let key = |name| value!([{"keyid": id(name), "from": "all"}]);
    revoked(&mut t, 5, |r| {
        r["keys"] = key(PUBLISHERS[2]);
        r["floors"]["digits"] = 7.into();
    })
    .expect("the first revocation");
    let same = with(
        5,
        &|r| {
            r["keys"] = key(PUBLISHERS[2]);
            r["floors"]["digits"] = 7.into();
        },
        &[REVOCATION],
    );
    assert!(matches!(t.accept_revocation(&same, UP), Ok(Accepted::Again(_))), "the newest one again");
    let stop = |r: &mut Value| {
        let bundle = value!({"bundle": {"statement_sha256": Digest::of(b"x")}, "severity": "stop", "reason": "fire"});
        r["bundles"] = value!([bundle]);
        r["keys"] = key(PUBLISHERS[2]);
        r["floors"]["digits"] = 7.into();
    };
    let by = |t: &mut Trust, bytes: &[u8]| unchanged(t, |t| t.accept_revocation(bytes, UP));
    let mut cases = vec![
        case("T21", "version 4 after 5", Code::RollbackRev, revoked(&mut t, 4, |_| {})),
        case("T21", "another version 5", Code::RollbackRev, revoked(&mut t, 5, |_| {})),
        case("T21", "a key given back", Code::RollbackRev, revoked(&mut t, 6, |r| r["floors"]["digits"] = 7.into())),
        case(
            "T21",
            "a key given back in part",
            Code::RollbackRev,
            revoked(&mut t, 6, |r| {
                r["keys"] = value!([{"keyid": id(PUBLISHERS[2]), "from": {"issued-after": "2030-01-01T00:00:00Z"}}]);
                r["floors"]["digits"] = 7.into();
            }),
        ),
        case(
            "T21",
            "a floor lowered",
            Code::RollbackRev,
            revoked(&mut t, 6, |r| {
                r["keys"] = key(PUBLISHERS[2]);
                r["floors"]["digits"] = 6.into();
            }),
        ),
        case("T22", "a stop with one signature", Code::Threshold, by(&mut t, &with(6, &stop, &[REVOCATION]))),
        case(
            "T22",
            "a stop with one signature twice",
            Code::Threshold,
            by(&mut t, &with(6, &stop, &[REVOCATION, REVOCATION])),
        ),
        taken("T22", "a stop with two signatures", by(&mut t, &with(6, &stop, &[REVOCATION, REVOCATION_2]))),
        case(
            "T35",
            "issued in 2033",
            Code::TimeJump,
            revoked(&mut t, 7, |r| {
                stop(r);
                r["bundles"] = value!([]);
                r["issued"] = "2033-05-18T03:33:20Z".into();
            }),
        ),
        case("T18", "of another fleet", Code::Fleet, revoked(&mut t, 7, |r| r["fleet"] = "other".into())),
        case("T02", "by strangers", Code::Threshold, by(&mut t, &with(7, &|_| {}, &[STRANGER]))),
        case("T08", "by the director", Code::Role, by(&mut t, &with(7, &|_| {}, &[DIRECTOR]))),
        case("T30", "version 2^53", Code::Limit, revoked(&mut t, 7, |r| r["version"] = (1_u64 << 53).into())),
        case("T15", "48 KiB and a byte", Code::Limit, by(&mut t, &vec![b' '; MAX_RETAINED_BYTES + 1])),
        taken(
            "T31",
            "the largest version",
            revoked(&mut t, U53::MAX, |r| {
                r["keys"] = key(PUBLISHERS[2]);
                r["floors"]["digits"] = 7.into();
            }),
        ),
    ];
    assert_eq!(t.floor("digits"), 7);
    let renewed = root_after(t.root(), |r| r["roles"]["revocation"]["role_epoch"] = 4.into(), &[1, 2]);
    t.accept_root(&renewed, UP).expect("a root that renews the role");
    cases.push(case("EPOCH", "a revocation of the old epoch", Code::Replay, revoked(&mut t, U53::MAX, |_| {})));
    cases.push(taken("T31", "version 1 of the new epoch", revoked(&mut t, 1, |r| r["role_epoch"] = 4.into())));
    assert_eq!(t.floor("digits"), 0, "a new epoch says anew what is taken away");
    cases
}

fn assignments() -> Vec<Case> {
    let mut t = trust();
    assigned(&mut t, 44, |_| {}).expect("the first assignment");
    let same = edited_and_sealed(PayloadKind::Assignment, &assignment(), |_| {}, &[DIRECTOR]);
    let again = t.accept_assignment(&same, UP);
    assert!(matches!(again, Ok(Accepted::Again(_))), "land says the same again at each connection");
    let mut cases = vec![
        case("T40", "an older number", Code::Replay, assigned(&mut t, 43, |_| {})),
        case(
            "T40",
            "the same number for something else",
            Code::Replay,
            assigned(&mut t, 44, |a| a["streams"] = value!([])),
        ),
        taken("T46", "a hold", assigned(&mut t, 46, |a| a["streams"][0]["intent"] = "hold".into())),
        case("T46", "the install before the hold", Code::Replay, assigned(&mut t, 45, |_| {})),
        case(
            "T37",
            "expired before it was issued",
            Code::Expired,
            assigned(&mut t, 47, |a| a["expires"] = "2023-11-14T00:00:00Z".into()),
        ),
        case("T39", "for another device", Code::Device, assigned(&mut t, 47, |a| a["device_id"] = "rpi-2".into())),
        case(
            "T35",
            "issued ten years ahead",
            Code::TimeJump,
            assigned(&mut t, 47, |a| a["issued"] = "2033-11-14T00:00:00Z".into()),
        ),
        case("T30", "number 2^53", Code::Limit, assigned(&mut t, 47, |a| a["seq"] = (1_u64 << 53).into())),
        case(
            "BEHIND",
            "by a director that knows root 2",
            Code::RootOld,
            assigned(&mut t, 47, |a| a["root_version"] = 2.into()),
        ),
        case(
            "BEHIND",
            "by a director that knows a revocation",
            Code::RevocationOld,
            assigned(&mut t, 47, |a| a["min_revocation"] = 1.into()),
        ),
        taken("T31", "the largest number", assigned(&mut t, U53::MAX, |_| {})),
        case("T31", "nothing is newer in this epoch", Code::Replay, assigned(&mut t, 1, |_| {})),
    ];
    let renewed = root_after(t.root(), |r| r["roles"]["director"]["role_epoch"] = 4.into(), &[1, 2]);
    t.accept_root(&renewed, UP).expect("a root that renews the role");
    cases.push(case("EPOCH", "of the old epoch", Code::Replay, assigned(&mut t, U53::MAX, |_| {})));
    cases.push(taken("T31", "number 1 of the new epoch", assigned(&mut t, 1, |a| a["role_epoch"] = 4.into())));
    let day = 24 * 3_600 * 1_000;
    let bytes = edited_and_sealed(
        PayloadKind::Assignment,
        &assignment(),
        |a| {
            a["role_epoch"] = 4.into();
            a["seq"] = 2.into();
            a["expires"] = "2023-11-16T00:00:00Z".into();
        },
        &[DIRECTOR],
    );
    cases.push(case(
        "T37",
        "expired while the device was up",
        Code::Expired,
        unchanged(&mut t, |t| t.accept_assignment(&bytes, 3 * day)),
    ));
    cases.push(taken("T37", "the same one in its time", unchanged(&mut t, |t| t.accept_assignment(&bytes, UP))));
    let mut t = trust();
    revoked(&mut t, 1, |r| {
        r["keys"] = value!([{"keyid": id(DIRECTOR), "from": {"issued-after": "2023-11-14T22:13:20Z"}}])
    })
    .expect("a revocation");
    cases.push(taken("T20", "signed by the director before its key was stolen", assigned(&mut t, 44, |_| {})));
    cases.push(case(
        "T19",
        "signed by the director after that",
        Code::RevokedKey,
        assigned(&mut t, 45, |a| a["issued"] = "2023-11-14T22:13:21Z".into()),
    ));
    for device in [value!({"device_id": DEVICE}), value!({"cert_sha256": Digest::of(b"cert")})] {
        let mut t = trust();
        revoked(&mut t, 1, |r| r["devices"] = value!([{"device_id": "rpi-2"}, device])).expect("a revocation");
        cases.push(case(
            "REVOKED",
            "for a device that was taken out",
            Code::RevokedDevice,
            assigned(&mut t, 44, |_| {}),
        ));
    }
    cases
}

fn beacons() -> Vec<Case> {
    let mut t = trust();
    assert_eq!(t.clock_state(0), ClockState::Unset);
    beaconed(&mut t, 5, |b| b["nonce"] = "another".into()).expect("a time is a time");
    assert_eq!(t.clock_state(UP), ClockState::Stale, "T33: another nonce proves nothing");
    beaconed(&mut t, 6, |b| drop(b.as_object_mut().unwrap().remove("nonce"))).expect("for everybody");
    assert_eq!(t.clock_state(UP), ClockState::Stale);
    let fresh = edited_and_sealed(PayloadKind::Beacon, &beacon(7), |_| {}, &[BEACON]);
    t.accept_beacon(&fresh, UP).expect("the answer");
    assert_eq!(t.clock_state(UP), ClockState::Fresh);
    let day = 24 * 3_600 * 1_000;
    assert_eq!(t.clock_state(UP + day + 1_000), ClockState::Stale, "T38: silence is seen");
    assert_eq!(t.clock_state(UP + 30 * day), ClockState::Stale);
    assert!(matches!(t.accept_beacon(&fresh, UP + 30 * day), Ok(Accepted::Again(_))));
    assert_eq!(t.clock_state(UP + 30 * day), ClockState::Stale, "T38: the same word does not make it fresh again");
    let mut rebooted = Trust::open(device(), FLEET, t.counters().clone(), &root_bytes(), None).expect("its own root");
    rebooted.expect_nonce("of this boot", 0);
    let replay = unchanged(&mut rebooted, |t| t.accept_beacon(&fresh, 10));
    assert_eq!(rebooted.clock_state(10), ClockState::Stale, "T34");
    let year_ahead = |b: &mut Value, year: u32| b["now"] = format!("{year}-11-14T00:00:00Z").into();
    vec![
        taken("T33", "a beacon with another nonce moves the time, and is not fresh", Ok(())),
        taken("T34", "a beacon again after a reboot changes nothing and is not fresh", replay),
        taken("T38", "30 days of silence are STALE", Ok(())),
        case("T34", "an older beacon", Code::Replay, beaconed(&mut t, 6, |_| {})),
        case("T34", "the same number with another time", Code::Replay, beaconed(&mut t, 7, |b| year_ahead(b, 2024))),
        case("T35", "ten years ahead", Code::TimeJump, beaconed(&mut t, 8, |b| year_ahead(b, 2033))),
        case("T35", "three years ahead", Code::TimeJump, beaconed(&mut t, 8, |b| year_ahead(b, 2026))),
        case(
            "T35",
            "issued ten years ahead",
            Code::TimeJump,
            beaconed(&mut t, 8, |b| b["issued"] = "2033-11-14T00:00:00Z".into()),
        ),
        taken("T35", "a year ahead", beaconed(&mut t, 8, |b| year_ahead(b, 2024))),
        case("T30", "number 2^53", Code::Limit, beaconed(&mut t, 9, |b| b["seq"] = (1_u64 << 53).into())),
        case("T15", "a nonce without end", Code::Limit, beaconed(&mut t, 9, |b| b["nonce"] = "n".repeat(129).into())),
        case("T18", "of another fleet", Code::Fleet, beaconed(&mut t, 9, |b| b["fleet"] = "other".into())),
        case("EPOCH", "of an old epoch", Code::Replay, beaconed(&mut t, 9, |b| b["role_epoch"] = 2.into())),
        case(
            "T08",
            "by the director",
            Code::Role,
            unchanged(&mut t, |t| t.accept_beacon(&sealed(PayloadKind::Beacon, &json(&beacon(9)), &[DIRECTOR]), UP)),
        ),
        stolen_beacon(),
    ]
}

/// A stolen beacon key pushed the time; a new root takes it back.
fn stolen_beacon() -> Case {
    let mut t = trust();
    for (seq, year) in (1..).zip(2024..2031).chain([(U53::MAX, 2031)]) {
        beaconed(&mut t, seq, |b| b["now"] = format!("{year}-01-01T00:00:00Z").into()).expect("each step is allowed");
    }
    assert_eq!(assigned(&mut t, 44, |a| a["expires"] = "2030-01-01T00:00:00Z".into()).unwrap_err().code, Code::Expired);
    let healed = root_after(
        t.root(),
        |r| {
            r["clock_reset"] = 1.into();
            r["roles"]["beacon"]["role_epoch"] = 4.into();
            r["issued"] = "2024-01-01T00:00:00Z".into();
        },
        &[1, 2],
    );
    unchanged(&mut t, |t| t.accept_root(&healed, UP)).expect("the healing root");
    assert_eq!(t.clock().low(UP), moment(1_704_067_200), "the time begins again with the root");
    assert_eq!(t.clock_state(UP), ClockState::Unset);
    let got = beaconed(&mut t, 1, |b| b["role_epoch"] = 4.into());
    assert_eq!(t.clock_state(UP), ClockState::Fresh);
    taken("T35", "clock_reset heals a stolen beacon key", got)
}

fn breakglasses() -> Vec<Case> {
    let mut t = trust();
    let by = |t: &mut Trust, keys: &[u8]| {
        let bytes = sealed(PayloadKind::Breakglass, &json(&breakglass()), keys);
        unchanged(t, |t| t.accept_breakglass(&bytes, UP))
    };
    let once = |name: &str| {
        let name = name.to_owned();
        move |b: &mut Value| b["once_id"] = name.into()
    };
    let mut cases = vec![
        case("T02", "a breakglass by one of two", Code::Threshold, by(&mut t, &BREAKGLASS[..1])),
        case("T08", "a breakglass by the roots", Code::Role, by(&mut t, &ROOTS)),
        case(
            "T28",
            "for other devices",
            Code::Device,
            broken_glass(&mut t, |b| b["to"] = value!({"device_ids": ["rpi-2"]})),
        ),
        case("T28", "for another class", Code::Device, broken_glass(&mut t, |b| b["to"] = value!({"class": "rpi5"}))),
        case("T28", "for no class", Code::Device, broken_glass(&mut t, |b| b["to"] = value!({"class": ""}))),
        case(
            "T37",
            "an expired breakglass",
            Code::Expired,
            broken_glass(&mut t, |b| b["expires"] = "2023-11-14T00:00:00Z".into()),
        ),
        case("T53", "below_floor: false", Code::Parse, broken_glass(&mut t, |b| b["below_floor"] = false.into())),
        case("T15", "no name of its use", Code::Limit, broken_glass(&mut t, once(""))),
        case("T15", "a name of 65 bytes", Code::Limit, broken_glass(&mut t, once(&"x".repeat(65)))),
        case(
            "T35",
            "a breakglass of 2030",
            Code::TimeJump,
            broken_glass(&mut t, |b| {
                (b["issued"], b["expires"]) = ("2030-01-01T00:00:00Z".into(), "2030-02-01T00:00:00Z".into());
            }),
        ),
        taken("T27", "the first use", broken_glass(&mut t, |_| {})),
        case("T27", "the same again", Code::Replay, broken_glass(&mut t, |_| {})),
        case("T27", "its name for another release", Code::Replay, broken_glass(&mut t, |b| b["release"] = 1.into())),
        taken(
            "T28",
            "for its class",
            broken_glass(&mut t, |b| (b["to"], b["once_id"]) = (value!({"class": "rpi4"}), "2".into())),
        ),
    ];
    for use_ in 2..256 {
        broken_glass(&mut t, once(&format!("use {use_}"))).expect("256 uses are remembered");
    }
    cases.push(case("T15", "the 257th use", Code::Limit, broken_glass(&mut t, once("one more"))));
    let renewed = root_after(t.root(), |r| r["roles"]["breakglass"]["role_epoch"] = 4.into(), &[1, 2]);
    unchanged(&mut t, |t| t.accept_root(&renewed, UP)).expect("a root that renews the role");
    cases.push(case("T27", "a use of the old epoch", Code::Replay, broken_glass(&mut t, |_| {})));
    cases.push(taken("T31", "a use in the new epoch", broken_glass(&mut t, |b| b["role_epoch"] = 4.into())));
    cases
}

fn memory() -> Vec<Case> {
    let mut t = trust();
    revoked(&mut t, 1, |_| {}).expect("a revocation");
    assigned(&mut t, 44, |_| {}).expect("an assignment");
    let root = root_bytes();
    let revocation = edited_and_sealed(PayloadKind::Revocation, &revocation(1), |_| {}, &[REVOCATION]);
    let counters: Counters = serde_json::from_slice(&json(t.counters())).expect("the counters are plain data");
    assert_eq!(counters, *t.counters());
    let open =
        |root: &[u8], revocation: Option<&[u8]>| Trust::open(device(), FLEET, counters.clone(), root, revocation);
    let other_root = edited_and_sealed(
        PayloadKind::Root,
        &crate::signer::root(),
        |r| r["policy"]["sideload"] = false.into(),
        &ROOTS[..2],
    );
    let other_revocation = sealed(PayloadKind::Revocation, &json(&crate::signer::revocation(2)), &[REVOCATION]);
    let bundle = bundle(|_| {});
    let lost = Trust::after_loss(device(), FLEET, &root).expect("the root that it was built with");
    let mut found = lost.clone();
    found.expect_nonce(NONCE, 0);
    beaconed(&mut found, 1, |b| b["nonce"] = "another".into()).expect("a time");
    let still_lost = bundle.judged(&found, |_| {});
    beaconed(&mut found, 2, |_| {}).expect("the answer");
    let without = open(&root, None).expect("the revocation may be fetched again");
    let mut restored = without.clone();
    restored.accept_revocation(&revocation, UP).expect("the same again");
    let mut put_back = trust();
    assigned(&mut put_back, 43, |_| {}).expect("a device whose disk was put back takes what it knew before");
    assert_eq!(put_back.counters().behind(t.counters()), ["revocation", "assignment"]);
    assert_eq!(t.counters().behind(put_back.counters()), [""; 0]);
    let mut cases = vec![
        taken("T77", "its own documents", open(&root, Some(&revocation))),
        case("T77", "another root on disk", Code::Digest, open(&other_root, Some(&revocation))),
        case("T77", "another revocation on disk", Code::Digest, open(&root, Some(&other_revocation))),
        case("T77", "no revocation on disk", Code::RevocationOld, bundle.judged(&without, |_| {})),
        taken("T77", "the revocation came again", bundle.judged(&restored, |_| {})),
        case("T78", "both slots bad", Code::Stale, bundle.judged(&lost, |_| {})),
        case("T78", "both slots bad, a stale beacon", Code::Stale, still_lost),
        taken("T78", "both slots bad, then FRESH", bundle.judged(&found, |_| {})),
        taken("T79", "who heard the last report sees what a device forgot", Ok(())),
    ];
    let damaged = (0..root.len() * 8).step_by(11).filter(|bit| {
        let mut bytes = root.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // Signatures are not asked again: what was believed is known by the digest of what was signed.
        Trust::open(device(), FLEET, counters.clone(), &bytes, Some(&revocation))
            .is_ok_and(|t| t.root().digest() != counters_root(&counters))
    });
    assert_eq!(damaged.count(), 0, "a damaged root is never another root");
    let mut t = trust();
    for n in 0..1_024 {
        let m = bundle_of(&format!("digits{n}"));
        t.confirm(&m.stream, m.release, m.security_floor).expect("1,024 streams");
    }
    cases.push(case(
        "T15",
        "a floor for the 1,025th stream",
        Code::Limit,
        unchanged(&mut t, |t| t.confirm("digits-more", U53::from(1), U53::from(1))),
    ));
    cases
}

/// The newest root is damaged on the disk, and the device has the one that it was given at first.
fn lost_root() -> Vec<Case> {
    let mut t = trust();
    let second = root_after(t.root(), |r| r["roles"]["breakglass"]["role_epoch"] = 4.into(), &[1, 2]);
    let fork = root_after(t.root(), |r| r["policy"]["sideload"] = false.into(), &[1, 2]);
    unchanged(&mut t, |t| t.accept_root(&second, UP)).expect("the second root");
    broken_glass(&mut t, |b| b["role_epoch"] = 4.into()).expect("a use in its epoch");
    let before = t.counters().clone();
    let again = |counters: &Counters, root: &[u8]| Trust::from_older_root(device(), FLEET, counters.clone(), root);
    let mut older = again(&before, &root_bytes()).expect("the root that it was given at first");
    let order = &assignment().streams[0];
    let mut cases = vec![
        case("T77", "a newer root than was believed", Code::RootFork, again(trust().counters(), &second)),
        case("T77", "an order, while the root is lost", Code::RootOld, older.judge_order(order, None, UP)),
        case("T77", "an assignment, while the root is lost", Code::RootOld, assigned(&mut older, 44, |_| {})),
        case("T77", "another root in its place", Code::RootFork, unchanged(&mut older, |t| t.accept_root(&fork, UP))),
        taken("T77", "the lost root came again", unchanged(&mut older, |t| t.accept_root(&second, UP))),
    ];
    assert_eq!(older.counters().behind(&before), [""; 0], "nothing was forgotten on the way");
    cases.push(taken("T77", "an order, afterwards", older.judge_order(order, None, UP)));
    cases
}

fn counters_root(counters: &Counters) -> Digest {
    let value = serde_json::to_value(counters).expect("plain data");
    value["root_sha256"].as_str().expect("a digest").parse().expect("a digest")
}

/// The believed manifest of a bundle of `stream`.
fn bundle_of(stream: &str) -> Verified<Manifest> {
    let bundle = bundle(|m| m["stream"] = stream.into());
    let statement = verify_statement(&trusted(), &bundle.envelope).expect("signed");
    verify_manifest(&trusted(), &statement, &bundle.manifest).expect("in scope")
}
