//! The engine beside Python: every held-out row of the example models, against
//! the answers of the frameworks that made them.

use std::path::{Path, PathBuf};

use petrel_engine::{Data, Golden, Input, Limits, Model, Pipeline, RunError, Tensor, Tolerance, read_input, read_npy};

const TOLERANCE: Tolerance = Tolerance { abs: 1e-5, rel: 1e-4 };

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models").join(name)
}

fn pipeline(name: &str) -> Pipeline {
    Pipeline::open(&folder(name), &Limits::default()).unwrap()
}

fn array(model: &str, name: &str) -> Tensor {
    read_npy(&folder(model).join(name), &Limits::default()).unwrap()
}

fn input(model: &str, name: &str) -> Input {
    read_input(&folder(model).join(name), &Limits::default()).unwrap()
}

fn golden(model: &str, x: &str, y: &str) -> Golden {
    let named = |file| vec![(String::new(), array(model, file))];
    Golden { inputs: named(x), outputs: named(y) }
}

fn close(got: &Tensor, expected: &Tensor) {
    assert_eq!(got.shape, expected.shape);
    for (at, (got, expected)) in got.to_f64().into_iter().zip(expected.to_f64()).enumerate() {
        let allowed = TOLERANCE.abs.max(TOLERANCE.rel * expected.abs());
        assert!((got - expected).abs() <= allowed, "value {at}: {got} is not {expected}");
    }
}

fn same_classes(pipeline: &Pipeline, input: &Input, expected: &Tensor) {
    let answer = pipeline.infer(input).unwrap();
    let classes = answer.classes.unwrap();
    let got: Vec<i64> = classes.iter().map(|class| class.index as i64).collect();
    assert_eq!(Data::I64(got), expected.data);
    for class in classes {
        assert_eq!(class.label.as_deref(), Some(&*pipeline.labels().unwrap()[class.index]));
        assert!((0.0..=1.0).contains(&class.score));
    }
}

#[test]
fn golden_rows_agree() {
    for name in ["digits", "diabetes", "cancer", "digits-bad", "vibration", "vibration-anomaly", "pictures"] {
        let model = Model::load(&folder(name).join("model.onnx"), &Limits::default()).unwrap();
        let golden = golden(name, "golden_x.npy", "golden_y.npy");
        let agreement = golden.check(&model, TOLERANCE).unwrap();
        assert_eq!(agreement.rows, golden.inputs[0].1.shape[0], "{name}");
    }
}

#[test]
fn digits_are_those_that_python_sees() {
    let pipeline = pipeline("digits");
    let heldout = golden("digits", "heldout_x.npy", "heldout_y.npy");
    assert_eq!(heldout.check(pipeline.model(), TOLERANCE).unwrap().rows, 500);
    same_classes(&pipeline, &input("digits", "heldout_x.npy"), &array("digits", "heldout_class.npy"));
}

#[test]
fn a_picture_of_a_digit_is_seen_as_pillow_sees_it() {
    let answer = pipeline("digits").infer(&input("digits", "sample.png")).unwrap();
    let text = std::fs::read(folder("digits").join("sample.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(answer.classes.unwrap()[0].index as u64, expected["class"].as_u64().unwrap());
}

#[test]
fn progression_is_what_scikit_learn_predicts() {
    let answer = pipeline("diabetes").infer(&input("diabetes", "heldout.csv")).unwrap();
    let expected = array("diabetes", "heldout_y.npy");
    let got = answer.outputs[0].1.as_f32().into_owned();
    close(&Tensor::new(expected.shape.clone(), Data::F32(got)).unwrap(), &expected);
}

#[test]
fn probabilities_are_those_of_scikit_learn() {
    let (pipeline, rows) = (pipeline("cancer"), input("cancer", "heldout.csv"));
    let answer = pipeline.infer(&rows).unwrap();
    close(&answer.outputs[0].1, &array("cancer", "heldout_y.npy"));
    same_classes(&pipeline, &rows, &array("cancer", "heldout_class.npy"));
}

/// Files that lie one behind the other in an array.
fn files(model: &str) -> Vec<Vec<u8>> {
    let (bytes, ends) = (array(model, "pictures.npy"), array(model, "pictures_ends.npy"));
    let (Data::U8(bytes), Data::I64(ends)) = (bytes.data, ends.data) else { panic!("no bytes or no ends") };
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, end)| bytes[start as usize..*end as usize].to_vec()).collect()
}

/// Prepares each file and compares it with Pillow's pixels; gives the largest difference, in `step`s.
fn worst_pixel(pipeline: &Pipeline, files: &[Vec<u8>], pixels: &[f64], step: impl Fn(usize) -> f64) -> f64 {
    let width = pixels.len() / files.len();
    let mut worst: f64 = 0.0;
    for (file, expected) in files.iter().zip(pixels.chunks(width)) {
        let got = pipeline.prepare(&Input::Image(file.clone())).unwrap().remove(0).to_f64();
        assert_eq!(got.len(), width);
        let apart = got.iter().zip(expected).enumerate().map(|(at, (got, expected))| (got - expected).abs() / step(at));
        worst = apart.fold(worst, f64::max);
    }
    worst
}

#[test]
fn every_picture_of_a_digit_is_seen_as_pillow_sees_it() {
    let (pipeline, files) = (pipeline("digits"), files("digits"));
    let unit = 16.0 / 255.0;
    let pixels: Vec<f64> = array("digits", "pictures_x.npy").to_f64().iter().map(|grey| grey * unit).collect();
    let (pngs, jpegs): (Vec<_>, Vec<_>) = files.iter().cloned().partition(|file| file.starts_with(b"\x89PNG"));
    assert_eq!((pngs.len(), jpegs.len()), (220, 60));
    let (of_pngs, of_jpegs) = pixels.split_at(pngs.len() * 64);
    assert!(worst_pixel(&pipeline, &pngs, of_pngs, |_| unit) < 1e-3, "a PNG is Pillow's to the last bit");
    assert!(worst_pixel(&pipeline, &jpegs, of_jpegs, |_| unit) < 1e-3, "a JPEG is Pillow's to the last bit");
    let expected = array("digits", "pictures_class.npy").to_f64();
    for (at, (file, expected)) in files.into_iter().zip(expected).enumerate() {
        let class = pipeline.infer(&Input::Image(file)).unwrap().classes.unwrap().remove(0);
        assert_eq!(class.index as f64, expected, "picture {at}");
    }
}

#[test]
fn pictures_are_turned_cropped_and_normalised_as_pillow_does() {
    let (pipeline, files) = (pipeline("pictures"), files("pictures"));
    let pixels = array("pictures", "pictures_x.npy").to_f64();
    let step = |at: usize| 1.0 / 255.0 / [0.225, 0.224, 0.229][at % 3];
    assert_eq!(files.len(), 48);
    for (at, (file, expected)) in files.iter().zip(pixels.chunks(16 * 16 * 3)).enumerate() {
        let worst = worst_pixel(&pipeline, std::slice::from_ref(file), expected, step);
        assert!(worst < 1e-3, "file {at}: {worst} grey levels");
    }
}

#[test]
fn forests_answer_raw_tables_as_scikit_learn_does() {
    for name in ["cancer-boosting", "cancer-forest"] {
        let (pipeline, rows) = (pipeline(name), input("cancer", "heldout.csv"));
        let answer = pipeline.infer(&rows).unwrap();
        let (output, chances) = &answer.outputs[1];
        assert_eq!((output.as_str(), chances.row_count()), ("probabilities", 219));
        close(chances, &array(name, "heldout_y.npy"));
        same_classes(&pipeline, &rows, &array(name, "heldout_class.npy"));
    }
}

#[test]
fn columns_of_words_and_numbers_find_their_inputs_by_name() {
    let (pipeline, rows) = (pipeline("pumps"), input("pumps", "heldout.csv"));
    assert!(!folder("pumps").join("pre.json").exists());
    let answer = pipeline.infer(&rows).unwrap();
    assert_eq!(answer.outputs[1].1.row_count(), 240);
    close(&answer.outputs[1].1, &array("pumps", "heldout_y.npy"));
    same_classes(&pipeline, &rows, &array("pumps", "heldout_class.npy"));
}

#[test]
fn golden_archives_of_several_inputs_agree() {
    for name in ["cancer-boosting", "cancer-forest", "pumps", "notes"] {
        let golden = Golden::read(&folder(name).join("golden.npz"), &Limits::default()).unwrap();
        assert_eq!(golden.check(pipeline(name).model(), TOLERANCE).unwrap().rows, 16, "{name}");
    }
}

#[test]
fn notes_are_read_as_tokenizers_reads_them() {
    let (pipeline, lines) = (pipeline("notes"), input("notes", "heldout.txt"));
    let prepared = pipeline.prepare(&lines).unwrap();
    assert_eq!(prepared[0], array("notes", "heldout_ids.npy"));
    close(&pipeline.infer(&lines).unwrap().outputs[0].1, &array("notes", "heldout_y.npy"));
    same_classes(&pipeline, &lines, &array("notes", "heldout_class.npy"));
}

#[test]
fn vibration_is_cut_and_classified_as_numpy_does() {
    let (pipeline, samples) = (pipeline("vibration"), input("vibration", "heldout.csv"));
    let answer = pipeline.infer(&samples).unwrap();
    assert_eq!(answer.outputs[0].1.row_count(), 209);
    close(&answer.outputs[0].1, &array("vibration", "heldout_y.npy"));
    same_classes(&pipeline, &samples, &array("vibration", "heldout_class.npy"));
}

#[test]
fn anomalies_are_those_that_numpy_finds() {
    let answer = pipeline("vibration-anomaly").infer(&input("vibration", "heldout.csv")).unwrap();
    let post = std::fs::read(folder("vibration-anomaly").join("post.json")).unwrap();
    let post: serde_json::Value = serde_json::from_slice(&post).unwrap();
    let threshold = post["steps"][0]["threshold"].as_f64().unwrap();
    let (anomalies, expected) = (answer.anomalies.unwrap(), array("vibration-anomaly", "heldout_score.npy").to_f64());
    assert_eq!((anomalies.len(), expected.len()), (209, 209));
    for (at, (got, expected)) in anomalies.iter().zip(expected).enumerate() {
        assert!((got.score - expected).abs() <= 1e-4 * expected, "window {at}: {} is not {expected}", got.score);
        assert_eq!(got.anomaly, expected >= threshold, "window {at}");
    }
    assert!(anomalies.iter().any(|row| row.anomaly) && anomalies.iter().any(|row| !row.anomaly));
}

#[test]
fn the_bad_model_has_no_answer_for_about_a_third() {
    let (bad, rows) = (pipeline("digits-bad"), array("digits", "heldout_x.npy"));
    let (mut silent, mut answered) = (0, 0);
    for row in 0..rows.shape[0] {
        let input = Input::Tensors(vec![(String::new(), rows.rows(row..row + 1).unwrap())]);
        match bad.infer(&input) {
            Ok(answer) => {
                assert_eq!(answer.outputs[0].1.first_non_finite(), None);
                answered += 1;
            }
            Err(RunError::NonFinite { row: 0, .. }) => silent += 1,
            Err(other) => panic!("row {row}: {other}"),
        }
    }
    let share = f64::from(silent) / f64::from(silent + answered);
    assert!((0.25..=0.42).contains(&share), "{silent} of {}", silent + answered);
}
