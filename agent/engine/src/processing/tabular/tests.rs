//! The tabular steps, each by values worked out by hand, and what is refused.

use super::*;
use crate::testing::floats;

fn port(name: &str, dtype: Dtype, shape: &[Option<usize>]) -> Port {
    Port { name: name.to_owned(), dtype, shape: shape.to_vec() }
}

fn read(fields: &str, ports: &[Port]) -> Result<Tabular, String> {
    let fields: Fields = serde_json::from_str(fields).map_err(|error| error.to_string())?;
    Tabular::read(fields, ports).map_err(|error| error.to_string())
}

fn table(text: &str) -> Table {
    Table::parse(text.as_bytes(), &Limits::default()).unwrap()
}

fn made(steps: &str, features: usize, text: &str) -> Result<Vec<f64>, String> {
    let ports = [port("x", Dtype::F32, &[None, Some(features)])];
    let steps = read(&format!(r#"{{"steps":{steps}}}"#), &ports)?;
    let made = steps.table(&table(text), &ports, &Limits::default()).map_err(|error| error.to_string())?;
    Ok(made[0].1.to_f64())
}

#[test]
fn each_step_does_what_scikit_learn_does() {
    let rows = "a,b\n1,10\n,30\n";
    let columns = |steps: &str| made(&format!(r#"[{{"op":"impute","values":[2,0]}},{steps}]"#), 2, rows).unwrap();
    assert_eq!(columns(r#"{"op":"standardise","mean":[1,10],"std":[2,20]}"#), [0.0, 0.0, 0.5, 1.0]);
    assert_eq!(columns(r#"{"op":"minmax","min":[0,10],"max":[4,50]}"#), [0.25, 0.0, 0.5, 0.5]);
    assert_eq!(columns(r#"{"op":"scale","offset":1,"factor":[3,0.5]}"#), [0.0, 4.5, 3.0, 14.5]);
    assert_eq!(columns(r#"{"op":"clip","min":1.5,"max":[9,20]}"#), [1.5, 10.0, 2.0, 20.0]);
}

#[test]
fn columns_are_renamed_selected_and_stepped_on_by_name() {
    let steps = r#"[{"op":"rename","columns":{"Age (years)":"age"}},{"op":"select","columns":["b","age"]},
        {"op":"impute","columns":["age"],"values":7},{"op":"scale","columns":["b"],"offset":0,"factor":[2]}]"#;
    assert_eq!(made(steps, 2, "Age (years),word,b\n1,x,2\n,y,4\n").unwrap(), [4.0, 1.0, 8.0, 7.0]);
    assert!(made(steps, 2, "age,b\n1,2\n").unwrap_err().contains("\"Age (years)\" is missing"));
}

#[test]
fn categories_become_columns_and_the_unknown_zeros() {
    let steps = r#"[{"op":"select","columns":["city","n"]},
        {"op":"impute","columns":["city"],"values":"Oslo"},
        {"op":"onehot","column":"city","categories":["Bonn","Oslo"]},
        {"op":"onehot","column":"n","categories":[1,2]},
        {"op":"scale","columns":["city=Oslo"],"offset":0,"factor":3}]"#;
    let got = made(steps, 4, "n,city\n1,Bonn\n2,\n3,Rome\n,Oslo\n").unwrap();
    let expected = [1.0, 0.0, 1.0, 0.0, 0.0, 3.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0];
    assert_eq!(got, expected);
    let numbers = r#"[{"op":"select","columns":["n"]},{"op":"onehot","column":"n","categories":["1","2"]}]"#;
    assert_eq!(made(numbers, 2, "n\n1\n2\n").unwrap(), [1.0, 0.0, 0.0, 1.0]);
}

#[test]
fn a_row_is_the_same_whatever_the_other_rows_are() {
    let texts = r#"[{"op":"select","columns":["n"]},{"op":"onehot","column":"n","categories":["01234","NA"]}]"#;
    let numbers = r#"[{"op":"select","columns":["n"]},{"op":"onehot","column":"n","categories":[1234,1]}]"#;
    for others in ["", "7\n", "pear\n"] {
        let rows = format!("n\n01234\n1.0\nNA\n{others}");
        assert_eq!(made(texts, 2, &rows).unwrap()[..6], [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(made(numbers, 2, &rows).unwrap()[..6], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        let ports = [port("x", Dtype::Text, &[None, Some(1)])];
        let words = Tabular::default().table(&table(&rows), &ports, &Limits::default()).unwrap();
        let Data::Text(words) = &words[0].1.data else { panic!("{words:?}") };
        assert_eq!(words[..3], ["01234", "1.0", "NA"]);
    }
}

#[test]
fn a_cell_that_is_no_whole_number_of_the_type_is_told() {
    for (dtype, cell, said) in [(Dtype::I64, "1.5", "\"1.5\""), (Dtype::I64, "", "\"\""), (Dtype::U8, "300", "\"300\"")]
    {
        let ports = [port("x", dtype, &[None, Some(2)])];
        let rows = table(&format!("a,b\n1,2\n3,{cell}\n"));
        let error = Tabular::default().table(&rows, &ports, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains(&format!("row 2, column \"b\": {said} cannot become {dtype}")), "{error}");
    }
}

#[test]
fn inputs_are_found_by_name_or_declared_one_by_one() {
    let ports = [
        port("age", Dtype::F32, &[None, Some(1)]),
        port("city", Dtype::Text, &[None]),
        port("num", Dtype::F32, &[None, Some(2)]),
    ];
    let rows = table("city,b,age,a\nBonn,1,40,2\nRome,3,50,4\n");
    let error = Tabular::default().table(&rows, &ports, &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("input \"num\" takes 2 features"), "{error}");
    let steps = read(r#"{"inputs":{"num":[{"op":"select","columns":["a","b"]}]}}"#, &ports).unwrap();
    let made = steps.table(&rows, &ports, &Limits::default()).unwrap();
    let city = Data::Text(vec!["Bonn".to_owned(), "Rome".to_owned()]);
    assert_eq!(made[0].1.cast(Dtype::F32).unwrap(), floats(&[2, 1], &[40.0, 50.0]));
    assert_eq!(made[1], ("city".to_owned(), Tensor::new(vec![2], city).unwrap()));
    assert_eq!(made[2].1.cast(Dtype::F32).unwrap(), floats(&[2, 2], &[2.0, 1.0, 4.0, 3.0]));
}

#[test]
fn tensors_go_through_the_steps_too() {
    let ports = [port("x", Dtype::F32, &[None, Some(3)])];
    let steps = r#"{"steps":[{"op":"select","columns":["n","c"]},{"op":"onehot","column":"c","categories":[1,2]}]}"#;
    let steps = read(steps, &ports).unwrap();
    let run = |tensor| steps.tensors(&[(String::new(), tensor)], &ports, &Limits::default());
    let made = run(floats(&[2, 2], &[5.0, 1.0, 6.0, 2.0])).unwrap();
    assert_eq!(made[0].1.to_f64(), [5.0, 1.0, 0.0, 6.0, 0.0, 1.0]);
    assert!(matches!(run(floats(&[1, 3], &[0.0; 3])), Err(RunError::Shape { .. })));
}

#[test]
fn words_where_numbers_are_wanted_are_told_with_their_line() {
    let error = made("[]", 2, "a,b\n1,2\n3,pear\n").unwrap_err();
    assert!(error.contains("line 3, column \"b\": \"pear\" is no number"), "{error}");
}

#[test]
fn what_would_be_too_large_is_refused_before_it_is_made() {
    let ports = [port("x", Dtype::F32, &[None, Some(4)])];
    let steps = r#"{"steps":[{"op":"select","columns":["n"]},{"op":"onehot","column":"n","categories":[1,2,3,4]}]}"#;
    let limits = Limits { input_elements: 7, ..Limits::default() };
    let error = read(steps, &ports).unwrap().table(&table("n\n1\n2\n"), &ports, &limits).unwrap_err();
    assert_eq!(error, RunError::TooLarge { elements: 8, limit: 7 });
}

#[test]
fn steps_that_do_not_suit_are_refused() {
    for (steps, expected) in [
        (r#"[{"op":"impute","values":[1]}]"#, "impute: values has 1 values for 2 features"),
        (r#"[{"op":"select","columns":["a"]}]"#, "it makes 1 features, and input \"x\" takes 2"),
        (r#"[{"op":"standardise","mean":[0,0],"std":[1,0]}]"#, "std 1 is 0, not above 0"),
        (r#"[{"op":"minmax","min":[1,1],"max":[2,1]}]"#, "max 1 is 1, not above 1"),
        (r#"[{"op":"impute","values":0},{"op":"select","columns":["a","b"]}]"#, "select comes before"),
        (r#"[{"op":"impute","values":0},{"op":"rename","columns":{}}]"#, "rename comes before"),
        (r#"[{"op":"impute","columns":["a"],"values":0}]"#, "need a select"),
        (r#"[{"op":"select","columns":["a","b"]},{"op":"impute","columns":["c"],"values":0}]"#, "no column \"c\""),
        (r#"[{"op":"onehot","column":"a","categories":[]}]"#, "needs a select"),
        (r#"[{"op":"bin"}]"#, "unknown variant `bin`"),
    ] {
        let ports = [port("x", Dtype::F32, &[None, Some(2)])];
        let error = read(&format!(r#"{{"steps":{steps}}}"#), &ports).unwrap_err();
        assert!(error.contains(expected), "{steps}: {error}");
    }
    let two = [port("x", Dtype::F32, &[None, Some(2)]), port("z", Dtype::F32, &[None, Some(2)])];
    assert!(read(r#"{"steps":[]}"#, &two).unwrap_err().contains("the model has 2"));
    assert!(read(r#"{"inputs":{"q":[]}}"#, &two).unwrap_err().contains("no input \"q\""));
}
