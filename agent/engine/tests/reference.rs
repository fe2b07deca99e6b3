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
    for name in ["digits", "diabetes", "cancer", "digits-bad"] {
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
