//! Models that would answer wrongly, as a person packs them: each is refused by the real binary with what is
//! wrong and what to do, and packed when it is right.
//!
//! Decides what a packer was promised of references, data files and explanations.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

struct Desk {
    dir: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_petrel"));
        command.current_dir(self.dir.path()).args(line.split_whitespace()).output().unwrap()
    }

    fn json(&self, line: &str) -> Value {
        let output = self.run(&format!("{line} --json"));
        assert!(output.status.success(), "petrel {line}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Packs what must be packed.
    fn packed(&self, line: &str) -> Value {
        let packed = self.json(&format!("pack {line} --stream s --version 1.0.0 -o bundle"));
        fs::remove_dir_all(self.path("bundle")).unwrap();
        packed
    }

    /// Packs what must be refused with a code; message and remedy must hold these words.
    fn refused(&self, line: &str, code: &str, words: &[&str]) {
        let output = self.run(&format!("pack {line} --stream s --version 1.0.0 -o bundle --json"));
        assert_eq!(output.status.code(), Some(1), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        let error = &error["error"];
        assert_eq!(error["code"].as_str().unwrap_or_default(), code, "{error}");
        let told = format!("{} {}", error["message"], error["remedy"]);
        for word in words {
            assert!(told.contains(word), "{word}: {told}");
        }
        assert!(!self.path("bundle").exists());
    }
}

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").canonicalize().unwrap()
}

fn file(name: &str) -> String {
    models().join(name).display().to_string()
}

/// A float32 array as NumPy writes it.
fn npy(path: &Path, shape: &[usize], values: &[f32]) {
    let shape: String = shape.iter().map(|axis| format!("{axis}, ")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    header.push_str(&" ".repeat(117 - header.len()));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

/// The values of a committed array.
fn values(name: &str) -> Vec<f32> {
    let bytes = fs::read(models().join(name)).unwrap();
    let data = &bytes[10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))..];
    data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn softmax(row: &[f32]) -> Vec<f32> {
    let sum: f32 = row.iter().map(|x| x.exp()).sum();
    row.iter().map(|x| x.exp() / sum).collect()
}

/// The trap: a library that answers 1 for every class here disagrees with ONNX Runtime, and one that does
/// not is packed.
#[test]
fn a_softmax_between_quantised_tensors_answers_as_onnx_runtime_does() {
    let desk = Desk::new();
    let [model, x, y] = ["softmax.onnx", "softmax_x.npy", "softmax_y.npy"].map(|name| file(&format!("planted/{name}")));
    // A probability is a multiple of 1/256; a rounding may fall on the other side.
    let line = format!("{model} --golden {x} {y} --tolerance-abs 0.004");
    let packed = desk.packed(&line);
    assert_eq!(packed["golden"]["rows"], 12);
    assert!(packed["notes"][0].as_str().unwrap().contains("int8 (QDQ)"), "{}", packed["notes"]);

    let ones = vec![1.0; values("planted/softmax_y.npy").len()];
    npy(&desk.path("ones.npy"), &[12, 3], &ones);
    desk.refused(
        &format!("{model} --golden {x} ones.npy --tolerance-abs 0.004"),
        "E_GOLDEN",
        &["probabilities", "row "],
    );
}

#[test]
fn a_swapped_axis_is_refused_and_named() {
    let desk = Desk::new();
    let [model, x, y] = ["model.onnx", "golden_x.npy", "golden_y.npy"].map(|name| file(&format!("digits/{name}")));
    desk.packed(&format!("{model} --golden {x} {y}"));
    let images = values("digits/golden_x.npy");
    // Channels last, as TensorFlow has them: another shape.
    npy(&desk.path("last.npy"), &[16, 8, 8, 1], &images);
    desk.refused(
        &format!("{model} --golden last.npy {y}"),
        "E_GOLDEN",
        &["[16, 8, 8, 1]", "channels last", "transpose"],
    );
    // Rows and columns swapped: the same shape, another picture.
    let turned: Vec<f32> = images
        .chunks_exact(64)
        .flat_map(|image| (0..64).map(|at| image[at % 8 * 8 + at / 8]).collect::<Vec<_>>())
        .collect();
    npy(&desk.path("turned.npy"), &[16, 1, 8, 8], &turned);
    desk.refused(
        &format!("{model} --golden turned.npy {y}"),
        "E_GOLDEN",
        &["logits", "row ", "axes 2 and 3", "transposed"],
    );
}

/// The golden inputs are raw here, so `pre.json` is tested with the model.
#[test]
fn a_wrong_scale_is_refused_and_named() {
    let desk = Desk::new();
    let [model, picture, pre] = ["model.onnx", "sample.png", "pre.json"].map(|name| file(&format!("digits/{name}")));
    // Pillow and ONNX Runtime: the picture resized, and scaled as the network was trained.
    let y = file("planted/sample_y.npy");
    let line = format!("{model} --golden-raw {picture} {y}");
    desk.packed(&format!("{line} --pre {pre}"));
    fs::create_dir(desk.path("pictures")).unwrap();
    fs::copy(&picture, desk.path("pictures/1.png")).unwrap();
    desk.packed(&format!("{model} --golden-raw pictures {y} --pre {pre}"));

    let right = fs::read_to_string(&pre).unwrap();
    assert!(right.contains("0.062745098039"));
    fs::write(desk.path("wrong.json"), right.replace("0.062745098039", "0.003921568627")).unwrap();
    desk.refused(
        &format!("{line} --pre wrong.json"),
        "E_GOLDEN",
        &["logits", "row 0", "times 16/1", "scale in pre.json"],
    );
}

#[test]
fn a_stale_label_file_is_refused_by_the_references_classes() {
    let desk = Desk::new();
    let name = |name: &str| file(&format!("digits/{name}"));
    let names: Vec<String> = (0..10).map(|digit| format!("digit-{digit}")).collect();
    let class = |row: &[f32]| (0..10).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
    let classes: Vec<usize> = values("digits/golden_y.npy").chunks_exact(10).map(class).collect();
    let lines = |words: Vec<String>| words.join("\n");
    fs::write(desk.path("labels.txt"), lines(names.clone())).unwrap();
    fs::write(desk.path("answers.txt"), lines(classes.iter().map(|class| names[*class].clone()).collect())).unwrap();
    fs::write(desk.path("numbers.txt"), lines(classes.iter().map(ToString::to_string).collect())).unwrap();
    let line = |labels: &str, answers: &str| {
        let [model, x, y, post] = ["model.onnx", "golden_x.npy", "golden_y.npy", "post.json"].map(name);
        format!("{model} --golden {x} {y} --post {post} --labels {labels} --golden-answers {answers}")
    };
    desk.packed(&line("labels.txt", "answers.txt"));
    desk.packed(&line("labels.txt", "numbers.txt"));

    let mut stale = names;
    stale.rotate_left(1);
    fs::write(desk.path("stale.txt"), lines(stale)).unwrap();
    let words = ["row 0", "the reference says", "16 of 16 rows differ", "labels.txt"];
    desk.refused(&line("stale.txt", "answers.txt"), "E_GOLDEN", &words);
    fs::write(desk.path("few.txt"), "digit-1\n").unwrap();
    desk.refused(&line("labels.txt", "few.txt"), "", &["1 of them for 16 rows"]);
}

/// The same mistake in the numbers: the reference's columns in another order.
#[test]
fn classes_in_another_order_are_named() {
    let desk = Desk::new();
    let [model, x] = ["model.onnx", "golden_x.npy"].map(|name| file(&format!("digits/{name}")));
    let mut rows: Vec<f32> = values("digits/golden_y.npy");
    rows.chunks_exact_mut(10).for_each(|row| row.rotate_left(1));
    npy(&desk.path("y.npy"), &[16, 10], &rows);
    desk.refused(
        &format!("{model} --golden {x} y.npy"),
        "E_GOLDEN",
        &["another order", "class 0 of the reference is class 1"],
    );
    // After softmax where the model gives logits: no simple reason, so the common advice.
    let rows: Vec<f32> = values("digits/golden_y.npy").chunks_exact(10).flat_map(softmax).collect();
    npy(&desk.path("p.npy"), &[16, 10], &rows);
    desk.refused(&format!("{model} --golden {x} p.npy"), "E_GOLDEN", &["row by row"]);
}

#[test]
fn tables_and_archives_are_references_too() {
    let desk = Desk::new();
    let name = |name: &str| file(&format!("diabetes/{name}"));
    let [model, x, y] = ["model.onnx", "golden_x.npy", "golden_y.npy"].map(name);
    let rows = |values: Vec<f32>, width: usize| {
        let header: Vec<String> = (0..width).map(|at| format!("c{at}")).collect();
        let row = |row: &[f32]| row.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        format!("{}\n{}\n", header.join(","), values.chunks_exact(width).map(row).collect::<Vec<_>>().join("\n"))
    };
    fs::write(desk.path("x.csv"), rows(values("diabetes/golden_x.npy"), 10)).unwrap();
    fs::write(desk.path("y.csv"), rows(values("diabetes/golden_y.npy"), 1)).unwrap();
    for (x, y) in [("x.csv", y.as_str()), (x.as_str(), "y.csv"), ("x.csv", "y.csv")] {
        assert_eq!(desk.packed(&format!("{model} --golden {x} {y}"))["golden"]["rows"], 16);
    }
    let mut wrong = values("diabetes/golden_y.npy");
    wrong[5] += 3.0;
    fs::write(desk.path("y.csv"), rows(wrong, 1)).unwrap();
    desk.refused(&format!("{model} --golden x.csv y.csv"), "E_GOLDEN", &["row 5", "off by 3.0e0"]);
    desk.refused(&format!("{model} --golden {} y.csv", name("pre.json")), "", &["pre.json", ".npz"]);
}

#[test]
fn weights_beside_the_model_go_into_the_bundle() {
    let desk = Desk::new();
    for name in ["external.onnx", "external.data"] {
        fs::copy(models().join("planted").join(name), desk.path(name)).unwrap();
    }
    let [x, y] = ["external_x.npy", "external_y.npy"].map(|name| file(&format!("planted/{name}")));
    let line = format!("external.onnx --golden {x} {y}");
    desk.run("keys new --role publisher --out keys");
    desk.run("root init --fleet plant-3 --out fleet --publisher keys/publisher.pub");
    desk.json(&format!("pack {line} --stream s --version 1.0.0 -o bundle"));
    let manifest: Value = serde_json::from_slice(&fs::read(desk.path("bundle/manifest.json")).unwrap()).unwrap();
    let listed = manifest["files"].as_array().unwrap();
    assert!(listed.contains(&serde_json::json!({ "name": "external.data", "role": "model-data" })), "{manifest}");
    assert!(desk.run("sign bundle --key keys/publisher.pem --tar bundle.tar").status.success());
    for bundle in ["bundle", "bundle.tar"] {
        assert_eq!(desk.json(&format!("verify {bundle} --root fleet/root.json"))["golden"]["rows"], 12);
    }
    let data = fs::read(desk.path("bundle/external.data")).unwrap();
    fs::write(desk.path("bundle/external.data"), vec![0; data.len()]).unwrap();
    let error = desk.run("verify bundle --root fleet/root.json --json");
    assert!(String::from_utf8_lossy(&error.stderr).contains("E_DIGEST"));
    fs::remove_dir_all(desk.path("bundle")).unwrap();

    // Cut short, led astray, gone, under a name that is taken.
    fs::write(desk.path("external.data"), &data[..100]).unwrap();
    desk.refused(&line, "E_MODEL", &["external.data", "not in a file of 100"]);
    fs::remove_file(desk.path("external.data")).unwrap();
    desk.refused(&line, "", &["external.data", "cannot read"]);
    fs::write(desk.path("elsewhere"), &data).unwrap();
    std::os::unix::fs::symlink("elsewhere", desk.path("external.data")).unwrap();
    desk.refused(&line, "E_MODEL", &["external.data", "is a link"]);
    let model = fs::read(desk.path("external.onnx")).unwrap();
    let renamed = |name: &[u8; 13]| {
        let mut model = model.clone();
        let found: Vec<usize> = (0..model.len() - 13).filter(|at| &model[*at..*at + 13] == b"external.data").collect();
        assert!(!found.is_empty());
        found.into_iter().for_each(|at| model[at..at + 13].copy_from_slice(name));
        fs::write(desk.path("external.onnx"), model).unwrap();
    };
    for place in [b"/etc/passwd-1", b"../extern.dat", b"..///////data"] {
        renamed(place);
        desk.refused(&line, "E_MODEL", &["no plain name", std::str::from_utf8(place).unwrap()]);
    }
    renamed(b"manifest.json");
    desk.refused(&line, "", &["manifest.json", "another name"]);
}

#[test]
fn what_cannot_be_run_is_explained_with_a_remedy() {
    let desk = Desk::new();
    let refused = |model: &str, words: &[&str]| {
        let data = file("digits/train.csv");
        desk.refused(&format!("{} --data {data}", file(&format!("planted/{model}"))), "E_MODEL", words);
    };
    refused("loop.onnx", &["Loop", "unroll it"]);
    refused("qoperator.onnx", &["com.microsoft.QLinearSigmoid", "QDQ", "float model"]);

    // One that runs is believed by a reference only.
    refused("qlinear.onnx", &["QLinearMatMul", "reference", "QDQ"]);
    let [model, x, y] = ["qlinear.onnx", "qlinear_x.npy", "qlinear_y.npy"].map(|name| file(&format!("planted/{name}")));
    assert_eq!(desk.packed(&format!("{model} --golden {x} {y}"))["golden"]["rows"], 12);

    let explained = desk.json(&format!("pack {} --explain", file("planted/loop.onnx")));
    let operators = explained["operators"].as_array().unwrap();
    let named = |name: &str| operators.iter().find(|usage| usage["operator"] == name).unwrap();
    assert_eq!((&named("Loop")["known"], &named("Relu")["known"]), (&false.into(), &true.into()));
    assert!(named("Loop")["remedy"].as_str().unwrap().contains("unroll") && named("Relu")["remedy"].is_null());
    assert!(explained["problem"].as_str().unwrap().contains("Loop") && explained["plan"].is_null());
    assert_eq!(explained["nodes"], 4, "those of the loop's body are counted");
    let explained = desk.json(&format!("pack {} --explain", file("planted/qoperator.onnx")));
    assert_eq!(explained["quantised"], "operators");
}

#[test]
fn a_model_that_runs_is_explained_too() {
    let desk = Desk::new();
    let explained = desk.json(&format!("pack {} --explain", file("digits/model.onnx")));
    assert_eq!((&explained["problem"], &explained["quantised"]), (&Value::Null, &"no".into()));
    assert_eq!(explained["plan"]["optimised"], true);
    assert_eq!(explained["inputs"][0]["shape"], serde_json::json!([null, 1, 8, 8]));
    let weights = explained["weights_bytes"].as_u64().unwrap();
    assert!(explained["peak_bytes"].as_u64().unwrap() > weights && weights > 100_000, "{explained}");
    let output = desk.run(&format!("pack {} --explain", file("planted/external.onnx")));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["data files", "external.data", "optimised, ", "Gemm", "This engine runs it"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(desk.run(&format!("pack {} --explain -o bundle", file("digits/model.onnx"))).status.code(), Some(2));
    let output = desk.run(&format!("pack {} --explain --json", file("digits/train.csv")));
    assert!(String::from_utf8_lossy(&output.stderr).contains("E_MODEL"));
}

#[test]
fn a_batch_stands_in_the_manifest_only_where_it_was_asked_for() {
    let desk = Desk::new();
    let [model, x, y] = ["model.onnx", "golden_x.npy", "golden_y.npy"].map(|name| file(&format!("diabetes/{name}")));
    let line = format!("{model} --golden {x} {y}");
    let runtime = |more: &str| desk.packed(&format!("{line} {more}"))["manifest"]["runtime"].clone();
    assert_eq!(runtime("").get("batch"), None);
    assert_eq!(runtime("--batch 16")["batch"], 16);
    assert_eq!(runtime("--batch 1")["batch"], 1);
    let packed = desk.packed(&format!("{line} --batch auto"));
    let measured = packed["manifest"]["runtime"]["batch"].as_u64().unwrap();
    assert!([1, 4, 16, 64].contains(&measured), "{packed}");
    assert!(packed["notes"][0].as_str().unwrap().contains(&format!("--batch {measured}")), "{packed}");
    assert_eq!(desk.run(&format!("pack {line} --stream s --version 1.0.0 -o b --batch 0")).status.code(), Some(2));
}
