//! From a model file to answers, without a network: they are those that Python gave.
//!
//! Decides how near is near enough. What the reference is, is told in tests/models.

use crate::programs::{Desk, Said};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Numbers of a NumPy file, as wide as they come.
pub(crate) fn npy(path: &Path) -> Vec<f64> {
    let bytes = fs::read(path).unwrap();
    let data = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..data]).unwrap();
    assert!(header.contains("'fortran_order': False"), "{header}");
    let (floats, wides) = (bytes[data..].chunks_exact(4), bytes[data..].chunks_exact(8));
    match header.split('\'').nth(3) {
        Some("<f4") => floats.map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
        Some("<f8") => wides.map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        Some("<i8") => wides.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        _ => panic!("{header}"),
    }
}

/// A NumPy file of float32.
pub(crate) fn npy_bytes(shape: &[usize], values: &[f64]) -> Vec<u8> {
    let shape: String = shape.iter().map(|n| format!("{n},")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    header.push_str(&" ".repeat(63 - (10 + header.len()) % 64));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| (*value as f32).to_le_bytes()));
    bytes
}

pub(crate) fn near(got: f64, expected: f64) -> bool {
    (got - expected).abs() <= (1e-4 * expected.abs()).max(1e-6)
}

/// What the engine's `post.json` makes of a reference that has not been through it.
pub(crate) fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::MIN, f64::max);
    let powers: Vec<f64> = logits.iter().map(|x| (x - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|x| x / sum).collect()
}

pub(crate) fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

pub(crate) fn rows(desk: &Desk, line: &str) -> Vec<Value> {
    desk.json(&format!("petrel-agent infer {line}"))["rows"].as_array().unwrap().clone()
}

#[test]
fn every_held_out_answer_is_pythons() {
    let desk = Desk::with_fleet();
    for (model, input, output, width, count) in [
        ("digits", "heldout_x.npy", "logits", 10, 500),
        ("diabetes", "heldout.csv", "progression", 1, 221),
        ("cancer", "heldout.csv", "logits", 2, 219),
    ] {
        let packed = desk.bundle(model, "1.0.0", model);
        let again = desk.json(&format!("{} -o again/{model}", crate::programs::pack(model, "1.0.0")));
        assert_eq!(packed["statement_sha256"], again["statement_sha256"], "{model} is packed alike each time");
        let verified = desk.json(&format!("petrel verify {model} --root fleet/root.json"));
        assert_eq!(verified["statement_sha256"], packed["statement_sha256"]);

        let file = |name: &str| desk.path(&format!("models/{model}/{name}"));
        let expected = npy(&file("heldout_y.npy"));
        let classes = file("heldout_class.npy").exists().then(|| npy(&file("heldout_class.npy")));
        let rows = rows(&desk, &format!("{model} --input models/{model}/{input} --root fleet/root.json"));
        assert_eq!((rows.len(), expected.len()), (count, count * width), "{model}");
        for (at, (row, expected)) in rows.iter().zip(expected.chunks(width)).enumerate() {
            let got = numbers(&row["outputs"][output]);
            let expected = if model == "digits" { softmax(expected) } else { expected.to_vec() };
            assert_eq!(got.len(), width);
            assert!(got.iter().zip(&expected).all(|(g, e)| near(*g, *e)), "{model} {at}: {got:?}, not {expected:?}");
            if let Some(classes) = &classes {
                assert_eq!(row["class"].as_f64(), Some(classes[at]), "{model} {at}");
                assert!(near(row["score"].as_f64().unwrap(), expected[classes[at] as usize]), "{model} {at}: {row}");
            } else {
                assert!(row["class"].is_null());
            }
        }
    }
    let sample: Value = serde_json::from_slice(&desk.read("models/digits/sample.json")).unwrap();
    let seen = rows(&desk, "digits --input models/digits/sample.png");
    assert_eq!((seen.len(), &seen[0]["class"]), (1, &sample["class"]));
}

#[test]
fn a_row_without_an_answer_is_refused_and_named() {
    let desk = Desk::with_fleet();
    desk.bundle("digits-bad", "1.1.0", "bad");
    let whole =
        desk.refused("petrel-agent infer bad --input models/digits/heldout_x.npy", &["logits"], "look at that row");
    let images = npy(&desk.path("models/digits/heldout_x.npy"));
    let classes = npy(&desk.path("models/digits/heldout_class.npy"));
    let mut failed = Vec::new();
    for (at, image) in images.chunks(64).take(30).enumerate() {
        desk.write("one.npy", npy_bytes(&[1, 1, 8, 8], image));
        match desk.run("petrel-agent infer bad --input one.npy --json") {
            Said { code: Some(0), out, .. } => {
                let answers: Value = serde_json::from_str(&out).unwrap();
                assert_eq!(answers["rows"][0]["class"].as_f64(), Some(classes[at]), "row {at}");
            }
            Said { code, err, .. } => {
                assert!(code == Some(1) && err.contains("row 1: output `logits` is not a finite number"), "{err}");
                failed.push(at);
            }
        }
    }
    assert!((1..30).contains(&failed.len()), "{failed:?}");
    assert!(whole.contains(&format!("row {}: ", failed[0] + 1)), "{whole}: {failed:?}");
}

#[test]
fn a_bundle_that_was_changed_gives_no_answer_to_who_has_the_root() {
    let desk = Desk::with_fleet();
    desk.bundle("digits", "1.0.0", "digits");
    let line = "petrel-agent infer digits --input models/digits/sample.png --root fleet/root.json";
    desk.done(line);
    let good = desk.read("digits/model.onnx");
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    desk.write("digits/model.onnx", bad);
    let refused = |code, name| desk.refused(line, &[code, name], "get the bundle again");
    refused("E_DIGEST", "model.onnx");
    desk.write("digits/model.onnx", &good[1..]);
    refused("E_SIZE", "model.onnx");
    desk.write("digits/model.onnx", &good);
    desk.write("digits/more.txt", "x");
    refused("E_EXTRA", "more.txt");
    fs::remove_file(desk.path("digits/more.txt")).unwrap();
    fs::remove_file(desk.path("digits/labels.txt")).unwrap();
    refused("E_MISSING", "labels.txt");
    fs::remove_file(desk.path("digits/bundle.dsse.json")).unwrap();
    refused("E_MISSING", "bundle.dsse.json");
}
