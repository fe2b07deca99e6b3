//! The recurrent operators beside their definitions in FP64, on random models.

use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto};

use crate::testing::{self, Chance, Load, floats, port, weights};

#[derive(Debug)]
struct Case {
    kind: &'static str,
    direction: &'static str,
    after: bool,
    batch_first: bool,
    time: usize,
    batch: usize,
    features: usize,
    hidden: usize,
    bias: bool,
    initial: bool,
    peepholes: bool,
    lengths: Option<Vec<i32>>,
}

fn attribute(name: &str, int: i64, text: &str) -> AttributeProto {
    let kind = if text.is_empty() { AttributeType::Int } else { AttributeType::String };
    AttributeProto {
        name: name.to_owned(),
        r#type: kind as i32,
        i: int,
        s: text.as_bytes().to_vec(),
        ..Default::default()
    }
}

impl Case {
    fn any(chance: &mut Chance) -> Case {
        let kind = ["LSTM", "GRU"][chance.below(2)];
        let mut coin = || chance.below(2) == 1;
        let (after, batch_first, bias, initial, peepholes, ragged) = (coin(), coin(), coin(), coin(), coin(), coin());
        let long = if chance.below(9) == 0 { 110 } else { 7 };
        let (time, batch) = (chance.below(long) + 1, chance.below(5) + 1);
        let lengths = ragged.then(|| (0..batch).map(|_| chance.below(time) as i32 + 1).collect());
        Case {
            kind,
            direction: ["forward", "reverse", "bidirectional"][chance.below(3)],
            after,
            batch_first,
            time,
            batch,
            features: chance.below(12) + 1,
            hidden: chance.below(40) + 1,
            bias,
            initial,
            peepholes: peepholes && kind == "LSTM",
            lengths,
        }
    }

    fn gates(&self) -> usize {
        if self.kind == "LSTM" { 4 } else { 3 }
    }

    /// Of each direction, whether it runs from the end.
    fn directions(&self) -> &'static [bool] {
        match self.direction {
            "forward" => &[false],
            "reverse" => &[true],
            _ => &[false, true],
        }
    }

    /// Shapes of X, W, R, B, the initial states and P.
    fn shapes(&self) -> [Vec<usize>; 7] {
        let (d, g, h) = (self.directions().len(), self.gates(), self.hidden);
        let first = |time: usize, batch: usize| if self.batch_first { [batch, time] } else { [time, batch] };
        let state = [&first(d, self.batch)[..], &[h]].concat();
        [
            [&first(self.time, self.batch)[..], &[self.features]].concat(),
            vec![d, g * h, self.features],
            vec![d, g * h, h],
            vec![d, 2 * g * h],
            state.clone(),
            state,
            vec![d, 3 * h],
        ]
    }

    /// The model, its weights constant and its states inputs.
    fn model(&self, operands: &[Vec<f32>]) -> ModelProto {
        let shapes = self.shapes();
        let given = |name: &'static str, is: bool| if is { name } else { "" };
        let lstm = self.kind == "LSTM";
        let names = [
            "x",
            "w",
            "r",
            given("b", self.bias),
            given("lengths", self.lengths.is_some()),
            given("h0", self.initial),
            given("c0", self.initial && lstm),
            given("p", self.peepholes),
        ];
        let outputs: &[&str] = if lstm { &["y", "h", "c"] } else { &["y", "h"] };
        let mut node = testing::node(self.kind, &names, outputs);
        node.attribute = vec![
            attribute("hidden_size", self.hidden as i64, ""),
            attribute("direction", 0, self.direction),
            attribute("layout", i64::from(self.batch_first), ""),
        ];
        if !lstm {
            node.attribute.push(attribute("linear_before_reset", i64::from(self.after), ""));
        }
        let dims = |shape: &[usize]| shape.iter().map(|dim| *dim as i64).collect::<Vec<_>>();
        let tensor = |name: &str, index: usize| weights(name, &dims(&shapes[index]), &operands[index]);
        let mut initializer = vec![tensor("w", 1), tensor("r", 2)];
        initializer.extend(self.bias.then(|| tensor("b", 3)));
        initializer.extend(self.initial.then(|| tensor("h0", 4)));
        initializer.extend((self.initial && lstm).then(|| tensor("c0", 5)));
        initializer.extend(self.peepholes.then(|| tensor("p", 6)));
        initializer.extend(self.lengths.as_ref().map(|lengths| tract_onnx::pb::TensorProto {
            name: "lengths".to_owned(),
            dims: vec![lengths.len() as i64],
            data_type: DataType::Int32 as i32,
            int32_data: lengths.clone(),
            ..Default::default()
        }));
        let fixed = |shape: &[usize]| shape.iter().map(|dim| Some(*dim as i64)).collect::<Vec<_>>();
        let free = |name: &&str| port(name, DataType::Float, &vec![None; if *name == "y" { 4 } else { 3 }]);
        testing::model(GraphProto {
            node: vec![node],
            initializer,
            input: vec![port("x", DataType::Float, &fixed(&shapes[0]))],
            output: outputs.iter().map(free).collect(),
            ..Default::default()
        })
    }

    /// ONNX's formulas, number by number: Y, Y_h and Y_c.
    fn expected(&self, operands: &[Vec<f32>]) -> [Vec<f32>; 3] {
        let (d, g, h, n) = (self.directions().len(), self.gates(), self.hidden, self.features);
        let [x, w, r, b, h0, c0, p] = operands else { unreachable!() };
        let mut all = vec![0.0; self.time * d * self.batch * h];
        let (mut last_h, mut last_c) = (vec![0.0; d * self.batch * h], vec![0.0; d * self.batch * h]);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        for (direction, row) in (0..d).flat_map(|direction| (0..self.batch).map(move |row| (direction, row))) {
            let state = if self.batch_first { row * d + direction } else { direction * self.batch + row } * h;
            let start = |from: &[f32]| -> Vec<f64> {
                (0..h).map(|unit| if self.initial { f64::from(from[state + unit]) } else { 0.0 }).collect()
            };
            let (mut hidden, mut cell) = (start(h0), start(c0));
            let length = self.lengths.as_ref().map_or(self.time, |lengths| lengths[row] as usize);
            for step in 0..length {
                let time = if self.directions()[direction] { length - 1 - step } else { step };
                let at = if self.batch_first { row * self.time + time } else { time * self.batch + row } * n;
                let line = |gate: usize, unit: usize| direction * g * h + gate * h + unit;
                let bias = |part: usize, gate: usize, unit: usize| match self.bias {
                    true => f64::from(b[direction * 2 * g * h + (part * g + gate) * h + unit]),
                    false => 0.0,
                };
                let of_x = |gate: usize, unit: usize| -> f64 {
                    let terms = (0..n).map(|k| f64::from(w[line(gate, unit) * n + k]) * f64::from(x[at + k]));
                    terms.sum::<f64>() + bias(0, gate, unit)
                };
                let of_h = |gate: usize, unit: usize, hidden: &[f64]| -> f64 {
                    let terms = (0..h).map(|k| f64::from(r[line(gate, unit) * h + k]) * hidden[k]);
                    terms.sum::<f64>() + bias(1, gate, unit)
                };
                let sum = |gate: usize, unit: usize| of_x(gate, unit) + of_h(gate, unit, &hidden);
                let peep = |gate: usize, unit: usize, cell: f64| match self.peepholes {
                    true => f64::from(p[(direction * 3 + gate) * h + unit]) * cell,
                    false => 0.0,
                };
                let next: Vec<(f64, f64)> = (0..h)
                    .map(|unit| {
                        if g == 4 {
                            let i = sigmoid(sum(0, unit) + peep(0, unit, cell[unit]));
                            let f = sigmoid(sum(2, unit) + peep(2, unit, cell[unit]));
                            let c = f * cell[unit] + i * sum(3, unit).tanh();
                            (sigmoid(sum(1, unit) + peep(1, unit, c)) * c.tanh(), c)
                        } else {
                            let left: Vec<f64> = (0..h).map(|unit| sigmoid(sum(1, unit)) * hidden[unit]).collect();
                            let candidate = match self.after {
                                true => of_x(2, unit) + sigmoid(sum(1, unit)) * of_h(2, unit, &hidden),
                                false => of_x(2, unit) + of_h(2, unit, &left),
                            };
                            let z = sigmoid(sum(0, unit));
                            ((1.0 - z) * candidate.tanh() + z * hidden[unit], 0.0)
                        }
                    })
                    .collect();
                (hidden, cell) = next.into_iter().unzip();
                let at = match self.batch_first {
                    true => (row * self.time + time) * d + direction,
                    false => (time * d + direction) * self.batch + row,
                };
                hidden.iter().enumerate().for_each(|(unit, value)| all[at * h + unit] = *value as f32);
            }
            for unit in 0..h {
                (last_h[state + unit], last_c[state + unit]) = (hidden[unit] as f32, cell[unit] as f32);
            }
        }
        [all, last_h, last_c]
    }
}

#[test]
fn both_agree_with_the_definition_for_any_shape_and_attributes() {
    let mut chance = Chance(11);
    for _ in 0..150 {
        let case = Case::any(&mut chance);
        let shapes = case.shapes();
        let mut operands: Vec<Vec<f32>> = shapes.iter().map(|shape| chance.floats(shape.iter().product())).collect();
        // So that a rounding error fades with the steps, and does not grow.
        operands[2].iter_mut().for_each(|weight| *weight *= 0.2);
        let model = case.model(&operands).load().unwrap_or_else(|error| panic!("{error} {case:?}"));
        let expected = case.expected(&operands);
        // Twice: nothing may be left from the first time.
        for _ in 0..2 {
            let got = model.run(&[floats(&shapes[0], &operands[0])]).unwrap_or_else(|error| panic!("{error} {case:?}"));
            for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert_eq!(got.as_f32().len(), expected.len(), "{case:?}");
                let apart = got.as_f32().iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(apart < 5e-6, "output {index}: {apart} {case:?}");
            }
        }
    }
}

#[test]
fn what_the_library_would_pass_over_in_silence_is_refused() {
    let mut chance = Chance(2);
    let case = Case { direction: "forward", lengths: None, ..Case::any(&mut chance) };
    let operands: Vec<Vec<f32>> = case.shapes().iter().map(|shape| chance.floats(shape.iter().product())).collect();
    let relu = AttributeProto {
        name: "activations".to_owned(),
        r#type: AttributeType::Strings as i32,
        strings: vec![b"Relu".to_vec(); 3],
        ..Default::default()
    };
    let clip =
        AttributeProto { name: "clip".to_owned(), r#type: AttributeType::Float as i32, f: 1.0, ..Default::default() };
    for (odd, said) in [(relu, "activation"), (clip, "clip"), (attribute("direction", 0, "up"), "direction")] {
        let mut model = case.model(&operands);
        let attributes = &mut model.graph.as_mut().unwrap().node[0].attribute;
        attributes.retain(|attribute| attribute.name != odd.name);
        attributes.push(odd);
        let error = testing::load_bytes(&model.encode_to_vec(), &crate::Limits::default()).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}
