//! Whether a bundle may be installed, and what becomes of one that runs.

use crate::signer::*;
use crate::{Case, case, taken};
use petrel_trust::*;
use serde_json::{Value, json as value};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = keys();
    cases.extend(order());
    cases.extend(fit());
    cases.extend(policy());
    cases.extend(standing());
    cases
}

/// The honest bundle after a revocation.
fn judge(revoke: impl FnOnce(&mut Value)) -> Result<(), Refusal> {
    sealed_as(None, revoke)
}

/// The same under another envelope.
fn sealed_as(envelope: Option<&[u8]>, revoke: impl FnOnce(&mut Value)) -> Result<(), Refusal> {
    let mut t = trust();
    revoked(&mut t, 1, revoke).expect("a revocation");
    let mut b = bundle(|_| {});
    b.envelope = envelope.map_or(b.envelope, <[u8]>::to_vec);
    b.judged(&t, |_| {})
}

fn keys() -> Vec<Case> {
    let key = |name, from: Value| value!([{"keyid": id(name), "from": from}]);
    let after = value!({"issued-after": "2030-01-01T00:00:00Z"});
    let three = sealed(PayloadKind::Bundle, &Statement::payload("digits", bundle(|_| {}).files), &PUBLISHERS);
    let digits_lab = bundle(|m| m["stream"] = "digits-lab".into());
    let revoke = |from: &Value| {
        let keys = key(PUBLISHERS[1], from.clone());
        move |r: &mut Value| r["keys"] = keys
    };
    let mut t = trust();
    revoked(&mut t, 1, revoke(&"all".into())).expect("a revocation");
    let payload = Statement::payload("digits", digits_lab.files.clone());
    let lab = sealed(PayloadKind::Bundle, &payload, &PUBLISHERS);
    let row = |severity: &str, which: Value| {
        let bundles = value!([{"bundle": which, "severity": severity, "reason": "it lies"}]);
        move |r: &mut Value| r["bundles"] = bundles
    };
    let this = value!({"statement_sha256": bundle(|_| {}).order.statement_sha256});
    let range = |first: u64, last: u64| value!({"releases": {"stream": "digits", "first": first, "last": last}});
    let director = sealed(PayloadKind::Bundle, &statement_payload(), &[DIRECTOR]);
    let mut cases = vec![
        taken("T20", "nobody revoked", judge(|_| {})),
        case("T19", "one of two signers revoked", Code::RevokedKey, judge(revoke(&"all".into()))),
        case("T19", "one of two signers revoked from a date on", Code::RevokedKey, judge(revoke(&after))),
        taken("T20", "two of three signers left, both in scope", {
            let mut b = digits_lab;
            b.envelope = lab;
            b.judged(&t, |_| {})
        }),
        case("T20", "two of three signers left, one in scope", Code::Threshold, {
            let mut b = bundle(|_| {});
            b.envelope = three;
            b.judged(&t, |_| {})
        }),
        taken("T20", "another publisher revoked", judge(|r| r["keys"] = key(PUBLISHERS[2], "all".into()))),
        taken("T20", "a root key in a revocation means nothing", judge(|r| r["keys"] = key(ROOTS[0], "all".into()))),
        taken("T22", "this bundle, info", judge(row("info", this.clone()))),
        case("T22", "this bundle, no-new", Code::RevokedBundle, judge(row("no-new", this.clone()))),
        case("T22", "this bundle, fallback", Code::RevokedBundle, judge(row("fallback", this))),
        case("T22", "a range with it", Code::RevokedBundle, judge(row("no-new", range(0, 1_002_000)))),
        taken("T22", "a range below it", judge(row("no-new", range(0, 1_001_999)))),
        case("T44", "signed by the director alone", Code::Role, sealed_as(Some(&director), |_| {})),
    ];
    let one = sealed(PayloadKind::Bundle, &statement_payload(), &PUBLISHERS[..1]);
    cases.push(case("T44", "signed by one publisher", Code::Threshold, sealed_as(Some(&one), |_| {})));
    cases
}

fn order() -> Vec<Case> {
    let b = bundle(|_| {});
    let with = |edit: &dyn Fn(&mut StreamAssignment), active: Option<u64>, t: &Trust| {
        let mut order = b.order.clone();
        edit(&mut order);
        b.judged(t, |o| (o.order, o.active) = (Some(&order), active))
    };
    let back = |o: &mut StreamAssignment| o.intent = Intent::Rollback;
    let (newer, t) = (Some(1_003_000), trust());
    let mut floored = trust();
    revoked(&mut floored, 1, |r| r["floors"]["digits"] = 1_002_001.into()).expect("a floor");
    let mut cases = vec![
        case("T41", "another statement", Code::Mismatch, with(&|o| o.statement_sha256 = Digest::of(b""), None, &t)),
        case("T41", "another release", Code::Mismatch, with(&|o| o.release = number(1_002_001), None, &t)),
        case("T41", "another stream", Code::Mismatch, with(&|o| o.stream = "vib-1".into(), None, &t)),
        case("T41", "another size", Code::Mismatch, with(&|o| o.total_size = number(1), None, &t)),
        case("T24", "a rollback below the floor", Code::Floor, with(&back, newer, &floored)),
        case("T24", "an install below the floor", Code::Floor, with(&|_| {}, None, &floored)),
        case("T25", "older, as an install", Code::UndeclaredRollback, with(&|_| {}, newer, &t)),
        case("T25", "older, as a hold", Code::UndeclaredRollback, with(&|o| o.intent = Intent::Hold, newer, &t)),
        taken("T26", "a declared rollback", with(&back, newer, &t)),
        taken("T26", "the same release again", with(&|_| {}, Some(1_002_000), &t)),
        taken(
            "T26",
            "a rollback from the release that is active",
            with(
                &|o| {
                    back(o);
                    o.from_release = Some(number(1_003_000));
                },
                newer,
                &t,
            ),
        ),
        case(
            "T26",
            "a rollback from another release",
            Code::Mismatch,
            with(
                &|o| {
                    back(o);
                    o.from_release = Some(number(1_004_000));
                },
                newer,
                &t,
            ),
        ),
        case("T37", "after its deadline", Code::Expired, with(&|o| o.deadline = Some(moment(T0)), None, &t)),
        case("T37", "before its time", Code::Early, with(&|o| o.not_before = Some(moment(T0 + 3_600)), None, &t)),
        taken(
            "T37",
            "within its time",
            with(&|o| (o.not_before, o.deadline) = (Some(moment(T0)), Some(moment(T0 + 3_600))), None, &t),
        ),
    ];
    cases.extend(floors(&floored));
    cases
}

/// Floors: raised by what was confirmed and by nothing else, passed under with a breakglass only.
fn floors(floored: &Trust) -> Vec<Case> {
    let b = bundle(|_| {});
    let statement = verify_statement(&trusted(), &b.envelope).expect("signed");
    let manifest = verify_manifest(&trusted(), &statement, &b.manifest).expect("in scope");
    let mut t = trust();
    let one = sealed(PayloadKind::Bundle, &statement_payload(), &PUBLISHERS[..1]);
    b.judged(&t, |o| o.envelope = &one).expect_err("too few signatures");
    b.judged(&t, |_| {}).expect("a good bundle");
    assert_eq!(t.floor("digits"), 0, "T29: what is refused, or only on trial, raises nothing");
    unchanged(&mut t, |t| t.confirm(&manifest.stream, manifest.release, manifest.security_floor))
        .expect("a floor more");
    assert_eq!(t.floor("digits"), 1_000_000);
    let older = |release: u64| bundle(move |m| (m["release"], m["security_floor"]) = (release.into(), 0.into()));
    let back = |b: &Bundle, t: &Trust| {
        let order = StreamAssignment { intent: Intent::Rollback, ..b.order.clone() };
        b.judged(t, |o| (o.order, o.active) = (Some(&order), Some(1_002_000)))
    };
    let mut cases = vec![
        taken("T29", "a floor is raised by what was confirmed", Ok(())),
        taken("T26", "back to the floor", back(&older(1_000_000), &t)),
        case("T24", "back below the floor", Code::Floor, back(&older(999_999), &t)),
    ];
    assert_eq!(t.floor("digits"), 1_000_000, "T26: a rollback leaves the floor where it is");
    let mut open = floored.clone();
    broken_glass(&mut open, |_| {}).expect("leave for release 1002000");
    let other = older(1_001_000);
    cases.push(taken("T27", "under the floor with leave", b.judged(&open, |o| o.active = Some(1_003_000))));
    cases.push(case("T27", "another release under the floor", Code::Floor, back(&other, &open)));
    let late = open.judge(&b.offer(), 48 * 3_600 * 1_000).refusal().cloned().map_or(Ok(()), Err);
    cases.push(case("T27", "leave that expired", Code::Floor, late));
    open.confirm(&manifest.stream, manifest.release, manifest.security_floor).expect("it proved itself");
    cases.push(case("T27", "leave that was used", Code::Floor, b.judged(&open, |_| {})));
    cases
}

fn fit() -> Vec<Case> {
    let t = trust();
    let on = |edit: &dyn Fn(&mut Board), change: &dyn Fn(&mut Value)| {
        let b = bundle(change);
        let mut board = b.board.clone();
        edit(&mut board);
        b.judged(&t, |o| o.board = Some(&board))
    };
    let here: &dyn Fn(&mut Board) = &|_| {};
    let b = bundle(|_| {});
    let fewer = &b.files[1..];
    vec![
        taken("T42", "a board that fits", on(here, &|_| {})),
        case("T42", "another architecture", Code::Hardware, on(&|b| b.arch = "x86_64".into(), &|_| {})),
        case("T42", "too little memory for the list", Code::Hardware, on(&|b| b.ram_mb = 511, &|_| {})),
        case("T42", "another class", Code::Hardware, on(here, &|m| m["hardware"][0]["class"] = "rpi5".into())),
        taken("T42", "its class", on(here, &|m| m["hardware"][0]["class"] = "rpi4".into())),
        case(
            "T42",
            "64 MB for a model that needs more",
            Code::Hardware,
            on(&|b| b.models_mb = 64, &|m| {
                m["hardware"] = value!([]);
                m["resources_budget"]["ram_mb"] = 65.into();
            }),
        ),
        case(
            "T42",
            "what stays loaded leaves too little",
            Code::Hardware,
            on(&|b| b.in_use_mb = 700, &|m| m["resources_budget"]["ram_mb"] = 69.into()),
        ),
        taken("T42", "it fits beside them", {
            on(&|b| b.in_use_mb = 700, &|m| m["resources_budget"]["ram_mb"] = 68.into())
        }),
        case("T43", "an older agent", Code::AgentOld, on(here, &|m| m["min_agent"] = "0.1.1".into())),
        case("T43", "an agent that nobody can compare", Code::AgentOld, on(here, &|m| m["min_agent"] = "new".into())),
        taken("T43", "a newer agent", on(&|b| b.agent = "1.0.0-rc1".into(), &|_| {})),
        case("BEHIND", "a bundle that needs root 2", Code::RootOld, on(here, &|m| m["min_root_version"] = 2.into())),
        case("T37", "an expired bundle", Code::Expired, on(here, &|m| m["expires"] = "2023-11-14T00:00:00Z".into())),
        case("DISK", "no room", Code::Disk, b.judged(&t, |o| o.free_disk = Some(1))),
        case("T48", "a file is missing", Code::Missing, b.judged(&t, |o| o.files = Some(fewer))),
        taken("T32", "what is not known refuses nothing, and installs nothing", {
            let judgement = t.judge(&Offer { board: None, free_disk: None, files: None, ..b.offer() }, UP);
            assert!(judgement.refusal().is_none() && !judgement.installs());
            Ok(())
        }),
    ]
}

fn policy() -> Vec<Case> {
    let b = bundle(|_| {});
    let strict = trust_under(|r| {
        r["policy"]["sideload"] = false.into();
        r["policy"]["director_may_rollback"] = false.into();
    });
    let mut open = strict.clone();
    broken_glass(&mut open, |_| {}).expect("leave");
    let back = StreamAssignment { intent: Intent::Rollback, ..b.order.clone() };
    let rollback = |t: &Trust| b.judged(t, |o| (o.order, o.active) = (Some(&back), Some(1_003_000)));
    let mut careful = trust_under(|r| r["policy"]["require_fresh_install"] = true.into());
    assert_eq!(careful.clock_state(0), ClockState::Unset);
    let in_1970 = b.judged(&careful, |_| {});
    beaconed(&mut careful, 1, |_| {}).expect("the answer");
    let fresh = b.judged(&careful, |_| {});
    let mut behind = trust();
    beaconed(&mut behind, 1, |b| b["root_version"] = 2.into()).expect("a beacon");
    let mut behind_too = trust();
    beaconed(&mut behind_too, 1, |b| b["revocation_version"] = 1.into()).expect("a beacon");
    vec![
        taken("POLICY", "a person brings a bundle", b.judged(&trust(), |o| o.order = None)),
        case(
            "POLICY",
            "a person brings a bundle where nobody may",
            Code::Policy,
            b.judged(&strict, |o| o.order = None),
        ),
        case("T26", "a rollback where the director may not", Code::Policy, rollback(&strict)),
        taken("T26", "the same with a breakglass", rollback(&open)),
        case(
            "T25",
            "a person brings an older bundle",
            Code::UndeclaredRollback,
            b.judged(&trust(), |o| (o.order, o.active) = (None, Some(1_003_000))),
        ),
        case("T32", "a boot in 1970 without network", Code::Stale, in_1970),
        taken("T32", "after the bridge answered", fresh),
        case("BEHIND", "a beacon that knows root 2", Code::RootOld, b.judged(&behind, |_| {})),
        case("BEHIND", "a beacon that knows a revocation", Code::RevocationOld, b.judged(&behind_too, |_| {})),
    ]
}

fn standing() -> Vec<Case> {
    let publishers: Vec<String> = PUBLISHERS[..2].iter().map(|k| id(*k)).collect();
    let held =
        |name: &[u8], release| Held { statement: Digest::of(name), stream: "digits", release, signers: &publishers };
    let (active, previous) = (held(b"active", 9), held(b"previous", 8));
    let row = |name: &[u8], severity: &str| value!({"bundle": {"statement_sha256": Digest::of(name)}, "severity": severity, "reason": ""});
    let course = |rows: Vec<Value>, keys: Value, root: &dyn Fn(&mut Value)| {
        let mut t = trust_under(root);
        let bytes = edited_and_sealed(
            PayloadKind::Revocation,
            &revocation(1),
            |r| {
                (r["bundles"], r["keys"]) = (rows.into(), keys);
            },
            &[REVOCATION, REVOCATION_2],
        );
        t.accept_revocation(&bytes, UP).expect("a revocation");
        (t.standing(&active), t.course(&active, Some(&previous)), t.course(&active, None))
    };
    let none = || value!([]);
    let same: &dyn Fn(&mut Value) = &|_| {};
    let fallback: &dyn Fn(&mut Value) = &|r| r["policy"]["on_active_revoked"] = "fallback".into();
    let gone = value!([{"keyid": publishers[0], "from": "all"}]);
    let from = value!([{"keyid": publishers[0], "from": {"issued-after": "2020-01-01T00:00:00Z"}}]);
    use {Course::*, Standing::*};
    assert_eq!(trust().course(&active, None), Stay);
    assert_eq!(course(vec![], none(), same), (Good, Stay, Stay));
    assert_eq!(course(vec![row(b"active", "info")], none(), same), (Doubted, Stay, Stay));
    assert_eq!(course(vec![row(b"active", "no-new")], none(), same), (Doubted, Stay, Stay));
    assert_eq!(course(vec![row(b"active", "fallback")], none(), same), (Unwanted, FallBack, Safe));
    assert_eq!(course(vec![row(b"active", "stop")], none(), same), (Stopped, Stop, Stop));
    assert_eq!(course(vec![row(b"active", "info"), row(b"active", "stop")], none(), same).0, Stopped);
    for bad in ["fallback", "stop"] {
        assert_eq!(course(vec![row(b"active", "fallback"), row(b"previous", bad)], none(), same).1, Safe, "T23");
    }
    assert_eq!(course(vec![row(b"active", "fallback"), row(b"previous", "no-new")], none(), same).1, FallBack);
    assert_eq!(course(vec![], gone.clone(), same), (Doubted, Stay, Stay), "revoked keys: keep running, report");
    assert_eq!(course(vec![], gone, fallback), (Unwanted, Safe, Safe), "both were signed by the revoked key");
    assert_eq!(course(vec![], from, fallback), (Good, Stay, Stay), "what was active before is good");
    ["T22", "T23"].map(|row| taken(row, "what becomes of what runs", Ok(()))).into()
}
