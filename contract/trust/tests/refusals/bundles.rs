//! Bundles and assignments: paths, the rules of statements, files, addressees, limits.

use crate::signer::*;
use crate::{Case, case, taken};
use petrel_trust::*;
use serde_json::{Value, json as value};

/// The statement after `edit`, honestly signed.
fn stated(edit: impl FnOnce(&mut Value)) -> Result<(), Refusal> {
    let mut statement = serde_json::from_slice(&statement_payload()).expect("JSON");
    edit(&mut statement);
    verify_statement(&trusted(), &sealed(PayloadKind::Bundle, &json(&statement), &PUBLISHERS[..2])).map(drop)
}

/// A well-formed statement over files of these names.
fn over(names: &[&str]) -> Result<(), Refusal> {
    let resources = names.iter().map(|name| Resource::new(*name, Digest::of(b"x"), number(1))).collect();
    let payload = Statement::payload("a name", resources);
    verify_statement(&trusted(), &sealed(PayloadKind::Bundle, &payload, &PUBLISHERS[..2])).map(drop)
}

/// The assignment after `edit`, honestly signed.
fn assigned(edit: impl FnOnce(&mut Value)) -> Result<(), Refusal> {
    let mut document = serde_json::to_value(assignment()).expect("plain data");
    edit(&mut document);
    verify_assignment(&trusted(), DEVICE, &sealed(PayloadKind::Assignment, &json(&document), &[DIRECTOR])).map(drop)
}

/// The manifest after `edit`, its statement made and signed anew.
fn described(edit: impl FnOnce(&mut Value)) -> Result<(), Refusal> {
    let mut manifest = serde_json::to_value(manifest()).expect("plain data");
    edit(&mut manifest);
    let manifest = json(&manifest);
    let payload = Statement::payload("a name", resources(&files(&manifest)));
    let statement = verify_statement(&trusted(), &sealed(PayloadKind::Bundle, &payload, &PUBLISHERS[..2]))?;
    verify_manifest(&trusted(), &statement, &manifest).map(drop)
}

/// The folder after `edit`, against the honest statement.
fn folder(edit: impl FnOnce(&mut Vec<Resource>)) -> Result<(), Refusal> {
    let mut found = resources(&files(&json(&manifest())));
    edit(&mut found);
    believed().check_files(&found)
}

pub(crate) fn cases() -> Vec<Case> {
    stated(|_| {}).expect("the honest statement is believed");
    assigned(|_| {}).expect("the honest assignment is believed");
    described(|_| {}).expect("the honest manifest is believed");
    folder(|found| found.reverse()).expect("the order of a folder means nothing");
    let mut cases = paths();
    cases.extend(rules());
    cases.extend(contents());
    cases.extend(manifests());
    cases.extend(assignments());
    cases.extend(limits());
    cases.extend(known());
    cases
}

/// A bundle that was believed once is known by its digest, whoever has left the root since.
fn known() -> Vec<Case> {
    let bundle = believed().digest();
    let by_a_stranger = sealed(PayloadKind::Bundle, &statement_payload(), &[STRANGER]);
    let statement = known_statement(bundle, &by_a_stranger).expect("its bytes are the believed ones");
    assert_eq!(statement.signers(), [""; 0]);
    let manifest = json(&manifest());
    let mut other = manifest.clone();
    other.push(b' ');
    vec![
        taken("T77", "a bundle that runs, its publisher gone", known_manifest(&statement, &manifest)),
        case("T77", "its manifest changed", Code::Size, known_manifest(&statement, &other)),
        case("T77", "another bundle", Code::Mismatch, known_statement(Digest::of(b"another"), &bundle_bytes())),
        case("T53", "its envelope cut", Code::Parse, known_statement(bundle, &bundle_bytes()[..90])),
    ]
}

fn paths() -> Vec<Case> {
    for good in ["a", "a/b/c.onnx", "A-1_b.2", "0", &"x".repeat(255), "sub/model.sig", "a..b"] {
        over(&[good]).unwrap_or_else(|refusal| panic!("`{good}` is a good path: {refusal}"));
    }
    over(&["A/x", "a/y", "ab", "a.b"]).expect("names that differ");
    let bad = [
        "",
        ".",
        "..",
        "/",
        "../x",
        "/x",
        "//x",
        "a//b",
        "a/",
        "a/.",
        "a/./b",
        "a/../b",
        "a/..",
        "./a",
        ".hidden",
        "a/.git",
        "-rf",
        "a/-x",
        "a\0b",
        "\0",
        "a\\b",
        "..\\x",
        "C:x",
        "C:\\x",
        "a:b",
        "a b",
        "a\nb",
        "a\u{202e}b",
        "ä",
        "a\u{301}",
        "\u{ff0e}\u{ff0e}/x",
        "a*",
        "a?b",
        "~",
        "$HOME",
        "a.",
        "a./b",
        "bundle.dsse.json",
        "model.sig",
        "Model.SIG",
        "BUNDLE.dsse.json",
    ];
    let mut cases: Vec<Case> = bad
        .iter()
        .map(|name| case("T50", format!("the file {}", name.escape_debug()), Code::Path, over(&[name])))
        .collect();
    cases.push(case("T50", "a name of 256 bytes", Code::Path, over(&[&"x".repeat(256)])));
    cases.push(case("T50", "a name of 4 KiB", Code::Path, over(&[&"a/".repeat(2_048)])));
    cases.push(case("T50", "a name of 4 KiB of commands", Code::Path, over(&[&"\u{1b}[2J".repeat(1_024)])));
    cases.push(case("T50", "case twins", Code::Path, over(&["model.onnx", "Model.onnx"])));
    cases.push(case("T50", "case twins in a folder", Code::Path, over(&["W/a.bin", "w/A.bin"])));
    cases.push(case("T50", "a file that is also a folder", Code::Path, over(&["a", "a/b"])));
    cases.push(case("T50", "a file that is also a folder further down", Code::Path, over(&["A/b", "a/B/c/d", "z"])));
    cases
}

fn rules() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut try_it = |how: &str, edit: &dyn Fn(&mut Value)| {
        cases.push(case("T52", how, Code::Statement, stated(edit)));
    };
    let files = |s: &mut Value| s["predicate"]["resources"].as_array().unwrap().clone();
    try_it("another type", &|s| s["_type"] = "https://in-toto.io/Statement/v0.1".into());
    try_it("another predicate", &|s| s["predicateType"] = "https://slsa.dev/provenance/v1".into());
    try_it("shards", &|s| s["predicate"]["serialization"]["method"] = "shards".into());
    try_it("another hash", &|s| s["predicate"]["serialization"]["hash_type"] = "blake2b".into());
    try_it("symbolic links", &|s| s["predicate"]["serialization"]["allow_symlinks"] = true.into());
    for foreign in ["model.onnx", "", ".", "*", ".GIT", "model.sig/x", "labels.txt"] {
        try_it(&format!("`{foreign}` left out"), &|s| {
            s["predicate"]["serialization"]["ignore_paths"] = value!([".git", foreign]);
        });
    }
    try_it("files in another order", &|s| {
        let mut other = files(s);
        other.swap(0, 1);
        s["predicate"]["resources"] = other.into();
    });
    try_it("a file twice", &|s| {
        let mut other = files(s);
        other.insert(1, other[0].clone());
        s["predicate"]["resources"] = other.into();
    });
    try_it("a file's digest by another algorithm", &|s| s["predicate"]["resources"][0]["algorithm"] = "md5".into());
    try_it("a file less than the subject's digest", &|s| {
        s["predicate"]["resources"] = files(s)[1..].into();
    });
    try_it("another digest of a file", &|s| {
        s["predicate"]["resources"][0]["digest"] = Digest::of(b"other").to_string().into();
    });
    try_it("another digest of the subject", &|s| {
        s["subject"][0]["digest"]["sha256"] = Digest::of(b"other").to_string().into();
    });
    try_it("no subject", &|s| s["subject"] = value!([]));
    try_it("two subjects", &|s| s["subject"] = value!([s["subject"][0], s["subject"][0]]));
    cases
}

fn contents() -> Vec<Case> {
    let named = |found: &mut Vec<Resource>, name: &str| found.iter().position(|f| f.name == name).expect("a file");
    let sized = |size: u64| {
        folder(|found| {
            let at = named(found, "model.onnx");
            found[at].size = number(size);
        })
    };
    let signed = believed().resource("model.onnx").expect("signed").size.get();
    let one = || Resource::new("run.sh", Digest::of(b""), number(0));
    let mut twice = resources(&files(&json(&manifest())));
    twice.push(Resource::new("model.onnx", Digest::of(b"another"), number(7)));
    let model = believed().resource("model.onnx").expect("signed").clone();
    let other = json(&Manifest { release: number(1_002_001), ..manifest() });
    let mixed = verify_manifest(&trusted(), &believed(), &other);
    let mut cases = vec![
        case("T47", "one file more", Code::Extra, folder(|found| found.push(one()))),
        case("T47", "one file more, first", Code::Extra, folder(|found| found.insert(0, one()))),
        case(
            "T47",
            "a case twin of a signed file",
            Code::Extra,
            folder(|found| {
                found.push(Resource::new("Model.onnx", model.digest, model.size));
            }),
        ),
        case("T47", "a signed file a second time", Code::Extra, believed().check_files(&twice)),
        case("T48", "an empty folder", Code::Missing, folder(Vec::clear)),
        case("T49", "one byte more", Code::Size, sized(signed + 1)),
        case("T49", "one byte less", Code::Size, sized(signed - 1)),
        case("T49", "no byte", Code::Size, sized(0)),
        case("T49", "bytes without end", Code::Size, sized(U53::MAX)),
        case("T49", "a file of no bytes", Code::Size, model.check_bytes(b"")),
        case("T51", "another content of the same size", Code::Digest, model.check_bytes(b"content of model.onnY")),
        case("T51", "the manifest of another release", Code::Digest, mixed),
        case(
            "T51",
            "files of two bundles",
            Code::Digest,
            folder(|found| {
                let (labels, golden) = (named(found, "labels.txt"), named(found, "golden.npz"));
                let digest = found[labels].digest;
                found[golden].digest = digest;
            }),
        ),
    ];
    for resource in believed().resources() {
        let without = folder(|found| found.retain(|f| f.name != resource.name));
        cases.push(case("T48", format!("without {}", resource.name), Code::Missing, without));
    }
    cases
}

fn manifests() -> Vec<Case> {
    let bare = Statement::payload("a name", vec![Resource::new("model.onnx", Digest::of(b"x"), number(1))]);
    let bare = verify_statement(&trusted(), &sealed(PayloadKind::Bundle, &bare, &PUBLISHERS[..2])).expect("signed");
    let shorter = verify_manifest(&trusted(), &believed(), &json(&manifest())[1..]);
    let mut cases = vec![
        case("T48", "a statement without a manifest", Code::Missing, verify_manifest(&trusted(), &bare, b"{}")),
        case("T49", "a manifest that was cut", Code::Size, shorter),
        case("VERSION", "a manifest of spec 2", Code::Version, described(|m| m["spec"] = 2.into())),
    ];
    let mut try_it = |how: &str, edit: &dyn Fn(&mut Value)| {
        cases.push(case("T52", how, Code::Statement, described(edit)));
    };
    try_it("a manifest that lists a file less", &|m| drop(m["files"].as_array_mut().unwrap().pop()));
    try_it("a manifest that lists a file more", &|m| {
        m["files"].as_array_mut().unwrap().push(value!({"name": "pre.json", "role": "pre"}));
    });
    try_it("a manifest that lists another file", &|m| m["files"][0]["name"] = "other.bin".into());
    try_it("a manifest that lists a file twice", &|m| m["files"][0] = m["files"][1].clone());
    try_it("a manifest that lists itself", &|m| m["files"][0]["name"] = "manifest.json".into());
    cases
}

fn assignments() -> Vec<Case> {
    let statement = statement_payload();
    let unsigned = Envelope { signatures: vec![], ..envelope(PayloadKind::Bundle, &statement, &[]) }.to_bytes();
    let believe = |bytes: &[u8]| verify_statement(&trusted(), bytes);
    let mut cases = vec![
        case("T44", "an assigned bundle without signatures", Code::Threshold, believe(&unsigned)),
        case("T44", "a bundle by one publisher and the director", Code::Threshold, {
            believe(&sealed(PayloadKind::Bundle, &statement, &[PUBLISHERS[0], DIRECTOR]))
        }),
        case("T18", "an assignment for another fleet", Code::Fleet, assigned(|a| a["fleet"] = "other".into())),
        case(
            "T52",
            "a stream twice",
            Code::Parse,
            assigned(|a| {
                a["streams"] = value!([a["streams"][0], a["streams"][0]]);
            }),
        ),
    ];
    for device in ["rpi-2", "rpi-11", "RPI-1", "", "rpi-1 "] {
        cases.push(case("T39", format!("for `{device}`"), Code::Device, assigned(|a| a["device_id"] = device.into())));
    }
    for epoch in [0, 2, 4, U53::MAX] {
        let got = assigned(|a| a["role_epoch"] = epoch.into());
        cases.push(case("EPOCH", format!("of epoch {epoch}"), Code::Replay, got));
    }
    for spec in [0, 2, u64::MAX] {
        let got = assigned(|a| a["spec"] = spec.into());
        cases.push(case("VERSION", format!("an assignment of spec {spec}"), Code::Version, got));
    }
    cases
}

fn limits() -> Vec<Case> {
    let stretched = |bytes: Vec<u8>, size: usize| [&bytes[..], &vec![b' '; size - bytes.len()]].concat();
    let most = |size| verify_assignment(&trusted(), DEVICE, &stretched(assignment_bytes(), size));
    let bundle = |size| verify_statement(&trusted(), &stretched(bundle_bytes(), size));
    let manifest = |size| verify_manifest(&trusted(), &believed(), &vec![b' '; size]);
    most(MAX_RETAINED_BYTES).expect("an assignment of exactly 48 KiB");
    bundle(MAX_DOCUMENT_BYTES).expect("a bundle's envelope of exactly 256 KiB");
    assert_eq!(manifest(MAX_DOCUMENT_BYTES).unwrap_err().code, Code::Size, "256 KiB are read");
    let names: Vec<String> = (0..1_025).map(|i| format!("{i:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    over(&names[..1_024]).expect("1024 files are allowed");
    let streams = |n: usize| {
        assigned(|a| {
            let row = |i| {
                let mut row = a["streams"][0].clone();
                row["stream"] = format!("s{i}").into();
                row
            };
            a["streams"] = (0..n).map(row).collect::<Vec<Value>>().into();
        })
    };
    streams(64).expect("64 streams are allowed");
    streams(0).expect("a device may be assigned nothing");
    vec![
        case("T15", "an assignment of 48 KiB and a byte", Code::Limit, most(MAX_RETAINED_BYTES + 1)),
        case("T15", "an envelope of 256 KiB and a byte", Code::Limit, bundle(MAX_DOCUMENT_BYTES + 1)),
        case("T15", "a manifest of 256 KiB and a byte", Code::Limit, manifest(MAX_DOCUMENT_BYTES + 1)),
        case("T15", "1025 files", Code::Limit, over(&names)),
        case("T15", "no files", Code::Limit, over(&[])),
        case("T15", "65 streams", Code::Limit, streams(65)),
    ]
}
