//! Every example model on a device: pulled, tried with its golden vectors there, served; and each held-out answer is the
//! reference's.
//!
//! `cargo xtask qemu` runs this with an agent for ARM. Decides how near is near enough together with `answers`.

use crate::answers::{near, npy, numbers, rows, softmax};
use crate::fleet::Fleet;
use crate::programs::Desk;
use serde_json::{Value, json};
use std::fs;
use std::ops::Range;

/// A model, its held-out rows and the output that is compared.
const EXAMPLES: [(&str, &str, &str); 9] = [
    ("digits", "digits/heldout_x.npy", "logits"),
    ("diabetes", "diabetes/heldout.csv", "progression"),
    ("cancer", "cancer/heldout.csv", "logits"),
    ("cancer-boosting", "cancer/heldout.csv", "probabilities"),
    ("cancer-forest", "cancer/heldout.csv", "probabilities"),
    ("pumps", "pumps/heldout.csv", "probabilities"),
    ("notes", "notes/heldout.txt", "logits"),
    ("vibration", "vibration/heldout.csv", "logits"),
    ("vibration-anomaly", "vibration/heldout.csv", ""),
];
/// What has pictures in place of rows.
const PICTURES: &str = "pictures";

#[test]
fn every_example_is_tried_on_the_device_and_answers_as_its_reference() {
    let mut fleet = Fleet::start();
    fleet.enlist("a");
    let models = || EXAMPLES.iter().map(|(model, ..)| *model).chain([PICTURES]);
    let rollouts: Vec<Value> = models()
        .map(|model| {
            fleet.desk.json(&format!("{} -o {model}", pack(&fleet.desk, model)));
            fleet.desk.done(&format!("petrel sign {model} --key keys/publisher.pem"));
            fleet.desk.json(&format!("petrel push {model}"));
            let started = fleet.desk.json(&format!("petrel rollout start {model}@1.0.0 --trial-window 1"));
            started["id"].clone()
        })
        .collect();
    // Confirmed is what answered its golden vectors on this processor, in a process of its own, and then served.
    for (model, id) in models().zip(rollouts) {
        let ended = fleet.rollout(&id, model, |rollout| rollout["ended"].is_u64());
        assert_eq!((&ended["state"], &ended["hit"]), (&json!("completed"), &json!(1)), "{model}: {ended}");
    }
    for (model, input, output) in EXAMPLES {
        let rows = rows(&fleet.desk, &format!("{model} --input models/{input} --root fleet/root.json"));
        match output {
            "" => anomalies_are_the_references(&fleet.desk, model, &rows),
            _ => rows_are_the_references(&fleet.desk, model, output, &rows),
        }
    }
    pictures_are_the_references(&fleet.desk);
    let images = npy(&fleet.desk.path("models/digits/heldout_x.npy"));
    let answer = fleet.classes("a", images.len() / 64, &images);
    assert_eq!(numbers(&answer["outputs"][0]["data"]), npy(&fleet.desk.path("models/digits/heldout_class.npy")));
}

/// `petrel pack` with all that lies beside the model.
fn pack(desk: &Desk, model: &str) -> String {
    let there = |file: &str| desk.path(&format!("models/{model}/{file}")).exists();
    let mut line = format!("petrel pack models/{model}/model.onnx --stream {model} --version 1.0.0");
    let files = [
        ("data", "train.csv"),
        ("pre", "pre.json"),
        ("post", "post.json"),
        ("labels", "labels.txt"),
        ("tokenizer", "tokenizer.json"),
    ];
    for (flag, file) in files.into_iter().filter(|(_, file)| there(file)) {
        line += &format!(" --{flag} models/{model}/{file}");
    }
    line + &match there("golden.npz") {
        true => format!(" --golden models/{model}/golden.npz"),
        false => format!(" --golden models/{model}/golden_x.npy models/{model}/golden_y.npy"),
    }
}

fn rows_are_the_references(desk: &Desk, model: &str, output: &str, rows: &[Value]) {
    let file = |name: &str| desk.path(&format!("models/{model}/{name}"));
    let expected = npy(&file("heldout_y.npy"));
    let classes = file("heldout_class.npy").exists().then(|| npy(&file("heldout_class.npy")));
    let width = expected.len() / rows.len();
    assert!(rows.len() > 200 && expected.len() == rows.len() * width, "{model}");
    for (at, (row, expected)) in rows.iter().zip(expected.chunks(width)).enumerate() {
        let got = numbers(&row["outputs"][output]);
        let expected = if model == "digits" { softmax(expected) } else { expected.to_vec() };
        assert_eq!(got.len(), width, "{model}");
        assert!(got.iter().zip(&expected).all(|(g, e)| near(*g, *e)), "{model} {at}: {got:?}, not {expected:?}");
        assert_eq!(row["class"].as_f64(), classes.as_ref().map(|classes| classes[at]), "{model} {at}");
    }
}

fn anomalies_are_the_references(desk: &Desk, model: &str, rows: &[Value]) {
    let expected = npy(&desk.path(&format!("models/{model}/heldout_score.npy")));
    assert_eq!(rows.len(), expected.len());
    for (at, (row, expected)) in rows.iter().zip(expected).enumerate() {
        let score = row["anomaly_score"].as_f64().unwrap();
        assert!((score - expected).abs() <= 1e-4 * expected, "{model} {at}: {score} is not {expected}");
    }
}

/// PNG and JPEG files, decoded, turned, cut and made numbers as Pillow does it.
fn pictures_are_the_references(desk: &Desk) {
    let file = |name: &str| desk.path(&format!("models/{PICTURES}/{name}"));
    let raw = fs::read(file("pictures.npy")).unwrap();
    let ends: Vec<usize> = npy(&file("pictures_ends.npy")).into_iter().map(|end| end as usize).collect();
    let start = raw.len() - ends.last().unwrap();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let ranges: Vec<Range<usize>> = starts.zip(&ends).map(|(from, to)| start + from..start + to).collect();
    let expected = npy(&file("pictures_x.npy"));
    let width = expected.len() / ranges.len();
    for (at, (range, expected)) in ranges.into_iter().zip(expected.chunks(width)).enumerate() {
        let bytes = &raw[range];
        let name = if bytes.starts_with(b"\x89PNG") { "one.png" } else { "one.jpg" };
        desk.write(name, bytes);
        let rows = rows(desk, &format!("{PICTURES} --input {name}"));
        let got = flat(&rows[0]["outputs"]["same"]);
        assert_eq!(got.len(), width, "picture {at}");
        // A thousandth of a grey level.
        assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1.7e-5), "picture {at}");
    }
}

/// The numbers of lists in lists.
fn flat(values: &Value) -> Vec<f64> {
    match values {
        Value::Array(values) => values.iter().flat_map(flat).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}
