//! Dense layers beside their definition, as models write them.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto};

use super::Dense;
use crate::model::Model;
use crate::tensor::Tensor;
use crate::testing::{self, Chance, Load, attribute, floats, node, port};

/// One layer, as it is written.
#[derive(Debug, Default)]
struct Case {
    /// Rows of an input of three axes lie so many together; an input of two has none.
    together: Option<usize>,
    depth: usize,
    columns: usize,
    /// MatMul and Add instead of Gemm.
    apart: bool,
    transposed: bool,
    alpha: Option<f32>,
    beta: Option<f32>,
    bias: Option<Vec<f32>>,
    relu: bool,
}

impl Case {
    fn any(chance: &mut Chance) -> Case {
        let size =
            |chance: &mut Chance| if chance.below(3) == 0 { chance.below(150) + 8 } else { chance.below(40) + 8 };
        let (depth, columns) = (size(chance) - 6, size(chance));
        let apart = chance.below(2) == 0;
        let factor =
            |chance: &mut Chance| (!apart && chance.below(3) == 0).then(|| [-2.0, -0.5, 0.25, 3.0][chance.below(4)]);
        let bias = match chance.below(3) {
            0 => None,
            1 => Some(chance.floats(1)),
            _ => Some(chance.floats(columns)),
        };
        Case {
            together: (apart && chance.below(2) == 0).then(|| chance.below(5) + 1),
            depth,
            columns,
            apart,
            transposed: !apart && chance.below(2) == 0,
            alpha: factor(chance),
            beta: factor(chance),
            bias,
            relu: chance.below(2) == 0,
        }
    }

    fn model(&self, weights: &[f32]) -> ModelProto {
        let at =
            |index: usize| if self.transposed { index / self.depth + index % self.depth * self.columns } else { index };
        let laid: Vec<f32> = (0..weights.len()).map(|index| weights[at(index)]).collect();
        let (depth, columns) = (self.depth as i64, self.columns as i64);
        let shape = if self.transposed { [columns, depth] } else { [depth, columns] };
        let mut initializer = vec![testing::weights("w", &shape, &laid)];
        if let Some(bias) = &self.bias {
            initializer.push(testing::weights("b", &[bias.len() as i64], bias));
        }
        let mut nodes = vec![];
        let ready = if self.apart {
            nodes.push(node("MatMul", &["x", "w"], &["product"]));
            self.bias.as_ref().map_or("product", |_| {
                nodes.push(node("Add", &["product", "b"], &["sum"]));
                "sum"
            })
        } else {
            let inputs = if self.bias.is_some() { &["x", "w", "b"][..] } else { &["x", "w"] };
            let mut gemm = node("Gemm", inputs, &["sum"]);
            let factor = |name: &str, value: Option<f32>| value.map(|value| attribute(name, value));
            gemm.attribute = factor("alpha", self.alpha).into_iter().chain(factor("beta", self.beta)).collect();
            gemm.attribute.push(attribute("transB", i64::from(self.transposed)));
            nodes.push(gemm);
            "sum"
        };
        nodes.push(node(if self.relu { "Relu" } else { "Identity" }, &[ready], &["y"]));
        let rows = || [None].into_iter().chain(self.together.map(|rows| Some(rows as i64)));
        let declared =
            |name: &str, last: i64| port(name, DataType::Float, &rows().chain([Some(last)]).collect::<Vec<_>>());
        let (input, output) = (vec![declared("x", depth)], vec![declared("y", columns)]);
        testing::model(GraphProto { node: nodes, initializer, input, output, ..Default::default() })
    }

    /// The definition, term by term.
    fn expected(&self, input: &[f32], weights: &[f32]) -> Vec<f32> {
        let (alpha, beta) = (self.alpha.unwrap_or(1.0), self.beta.unwrap_or(1.0));
        let sum = |row: &[f32], column: usize| {
            let terms = row.iter().zip(weights.iter().skip(column).step_by(self.columns));
            let sum: f64 = terms.map(|(x, weight)| f64::from(*x) * f64::from(*weight)).sum();
            let bias = self.bias.as_ref().map_or(0.0, |bias| bias[column % bias.len()] * beta);
            let sum = sum as f32 * alpha + bias;
            if self.relu && sum < 0.0 { 0.0 } else { sum }
        };
        input.chunks_exact(self.depth).flat_map(|row| (0..self.columns).map(move |column| sum(row, column))).collect()
    }

    fn input(&self, rows: usize, values: &[f32]) -> Tensor {
        let shape: Vec<usize> = [rows].into_iter().chain(self.together).chain([self.depth]).collect();
        floats(&shape, values)
    }
}

fn layers(model: &Model, input: &Tensor) -> usize {
    let warm = model.plan(std::slice::from_ref(input)).unwrap();
    warm.plan.model().nodes().iter().filter(|node| node.op_is::<Dense>()).count()
}

fn run(model: &Model, input: &Tensor) -> Vec<f32> {
    model.run(std::slice::from_ref(input)).unwrap()[0].as_f32().to_vec()
}

#[test]
fn it_agrees_with_the_definition_for_any_size_and_number_of_rows() {
    let mut chance = Chance(3);
    for at in 0..260 {
        let case = Case::any(&mut chance);
        let weights = chance.floats(case.depth * case.columns);
        let model = case.model(&weights).load().unwrap();
        // Every number of rows from 1 to 65 comes up, several times.
        let rows = at % 65 + 1;
        let values = chance.floats(rows * case.together.unwrap_or(1) * case.depth);
        let input = case.input(rows, &values);
        assert_eq!(layers(&model, &input), 1, "{case:?}");
        let (got, expected) = (run(&model, &input), case.expected(&values, &weights));
        assert_eq!(got.len(), expected.len(), "{case:?}");
        for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let near = (got - expected).abs() <= 1e-5 * (1.0 + case.depth as f32 * 0.1);
            assert!(near, "{rows} rows of {case:?}: value {index} is {got}, not {expected}");
        }
    }
}

#[test]
fn bias_and_clamp_are_taken_in() {
    let case = Case { depth: 4, columns: 9, bias: Some(vec![0.5; 9]), relu: true, ..Case::default() };
    let model = case.model(&[0.25; 36]).load().unwrap();
    let input = floats(&[1, 4], &[1.0; 4]);
    let warm = model.plan(std::slice::from_ref(&input)).unwrap();
    assert_eq!(warm.plan.model().nodes().len(), 2, "{:?}", warm.plan.model());
    assert_eq!(run(&model, &input), [1.5; 9]);
}

#[test]
fn what_is_no_number_stays_so_in_its_own_row() {
    for rows in [1, 2, 3, 8, 13] {
        let case = Case { depth: 5, columns: 35, bias: Some(vec![0.5]), relu: true, apart: true, ..Case::default() };
        let model = case.model(&[1.0; 5 * 35]).load().unwrap();
        for (odd, expected) in [(f32::NAN, f32::NAN), (f32::INFINITY, f32::INFINITY), (f32::NEG_INFINITY, 0.0)] {
            let mut values = vec![1.0; rows * 5];
            values[(rows - 1) * 5 + 3] = odd;
            let got = run(&model, &case.input(rows, &values));
            let (others, row) = got.split_at((rows - 1) * 35);
            assert!(others.iter().all(|value| *value == 5.5), "{others:?}");
            let same = |value: &f32| *value == expected || value.is_nan() && expected.is_nan();
            assert!(row.iter().all(same), "{odd} becomes {row:?}");
        }
    }
}

/// One product with whatever lies around it.
fn around(columns: i64, attributes: Vec<AttributeProto>, bias: (&[i64], Vec<f32>)) -> Model {
    let mut gemm = node("Gemm", &["x", "w", "b"], &["y"]);
    gemm.attribute = attributes;
    let spread = |count: i64| (0..count).map(|at| ((at * 7) % 5) as f32 - 2.0).collect::<Vec<_>>();
    let weights =
        vec![testing::weights("w", &[3, columns], &spread(3 * columns)), testing::weights("b", bias.0, &bias.1)];
    let declared = |name: &str, last: i64| port(name, DataType::Float, &[Some(3), Some(last)]);
    let (input, output) = (vec![declared("x", 3)], vec![declared("y", columns)]);
    let graph = GraphProto { node: vec![gemm], initializer: weights, input, output, ..Default::default() };
    testing::model(graph).load().unwrap()
}

#[test]
fn what_is_no_layer_is_left_to_the_library_and_right_all_the_same() {
    let x = floats(&[3, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    // Of the first column, by rows: 1 * -2 + 2 * w[3] + …, w[at] = (7 * at) % 5 - 2.
    let w = |row: usize, column: usize, columns: usize| (((row * columns + column) * 7) % 5) as f32 - 2.0;
    let dot = |row: [f32; 3], columns: usize| (0..3).map(|at| row[at] * w(at, 0, columns)).sum::<f32>();
    let plain = around(8, vec![], (&[8], vec![0.0; 8]));
    assert_eq!((layers(&plain, &x), run(&plain, &x)[0]), (1, dot([1.0, 2.0, 3.0], 8)));
    let turned = around(8, vec![attribute("transA", 1)], (&[8], vec![0.0; 8]));
    assert_eq!((layers(&turned, &x), run(&turned, &x)[0]), (0, dot([1.0, 4.0, 7.0], 8)));
    let narrow = around(2, vec![], (&[2], vec![0.0; 2]));
    assert_eq!((layers(&narrow, &x), run(&narrow, &x)[0]), (0, dot([1.0, 2.0, 3.0], 2)));
    // A bias of each row is added apart.
    let rows = around(8, vec![], (&[3, 1], vec![10.0, 20.0, 30.0]));
    assert_eq!((layers(&rows, &x), run(&rows, &x)[8]), (1, dot([4.0, 5.0, 6.0], 8) + 20.0));
}
