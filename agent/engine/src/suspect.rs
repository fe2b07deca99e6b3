//! Why a model may disagree with its reference: the mistakes that people make when they export.
//!
//! Decides what to try: axes in another order, values in another unit, classes in another order. What makes
//! the model agree is told; what does not is no suspicion. A hint for people, never a verdict.

use crate::golden::{Golden, Tolerance};
use crate::model::Model;
use crate::port::{Port, show};
use crate::tensor::{Data, Tensor, each};

/// Units between which people slip: 255 for pixels, 100 for percent, 1,000 for milli.
const UNITS: [f64; 9] = [1.0, 10.0, 16.0, 100.0, 127.5, 128.0, 255.0, 256.0, 1000.0];
/// Elements of the golden inputs above which nothing is tried: it takes a run for each suspicion.
const MOST: usize = 1 << 20;
/// Classes above which their order is not looked for.
const CLASSES: usize = 1024;

impl Golden {
    /// What would make the model agree with its reference, in words; `None` when nothing simple does.
    pub fn suspect(&self, model: &Model, tolerance: Tolerance) -> Option<String> {
        let agrees = |at: usize, tensor: Tensor| {
            let mut tried = self.clone();
            tried.inputs[at].1 = tensor;
            tried.check(model, tolerance).is_ok()
        };
        let port = |name: &str| {
            let ports = model.inputs();
            ports.iter().find(|port| port.name == name || (name.is_empty() && ports.len() == 1))
        };
        if self.inputs.iter().map(|(_, tensor)| tensor.len()).sum::<usize>() > MOST {
            return None;
        }
        for (at, (name, tensor)) in self.inputs.iter().enumerate() {
            let Some(port) = port(name).filter(|_| tensor.check().is_ok()) else { continue };
            if let Some(told) = layout(tensor, port).or_else(|| axes(tensor, port, |tensor| agrees(at, tensor))) {
                return Some(told);
            }
            if let Some(told) = unit(tensor, port, |tensor| agrees(at, tensor)) {
                return Some(told);
            }
        }
        self.classes(model, tolerance)
    }

    /// Whether the model's classes are the reference's in another order.
    fn classes(&self, model: &Model, tolerance: Tolerance) -> Option<String> {
        let answers = model.run_rows(&model.arrange(&self.inputs).ok()?).ok()?;
        let ports = model.outputs();
        for (name, reference) in &self.outputs {
            let index = ports.iter().position(|port| port.name == *name || (name.is_empty() && ports.len() == 1))?;
            let [_, classes] = reference.shape[..] else { continue };
            if answers[index].shape != reference.shape || !(2..=CLASSES).contains(&classes) {
                continue;
            }
            let (expected, got) = (reference.to_f64(), answers[index].to_f64());
            let column = |values: &[f64], class: usize| values.iter().skip(class).step_by(classes).copied().collect();
            let columns = |values: &[f64]| (0..classes).map(|class| column(values, class)).collect::<Vec<Vec<f64>>>();
            let (expected, got) = (columns(&expected), columns(&got));
            let close = |a: &f64, b: &f64| (a - b).abs() <= tolerance.abs.max(tolerance.rel * b.abs());
            let same = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| close(a, b));
            let order = expected.iter().map(|column| got.iter().position(|other| same(other, column)));
            let order: Option<Vec<usize>> = order.collect();
            if let Some(order) = order.filter(|order| !order.is_sorted()) {
                let first = order.iter().enumerate().find(|(class, other)| class != *other)?;
                return Some(format!(
                    "the classes are in another order: class {} of the reference is class {} of the model",
                    first.0, first.1
                ));
            }
        }
        None
    }
}

/// Whether channels come last in the golden inputs and first in the model, or the other way round.
fn layout(tensor: &Tensor, port: &Port) -> Option<String> {
    let rank = tensor.shape.len();
    if port.fits_rows(&tensor.shape) || rank < 3 {
        return None;
    }
    let mut first = tensor.shape.clone();
    first[1..].rotate_right(1);
    let mut last = tensor.shape.clone();
    last[1..].rotate_left(1);
    let told = |what: &str| {
        let (given, takes) = (&tensor.shape, show(&port.shape));
        Some(format!("the inputs {given:?} look like channels {what}, and the model takes {takes}: transpose them"))
    };
    match (port.fits_rows(&first), port.fits_rows(&last)) {
        (true, _) => told("last"),
        (_, true) => told("first"),
        _ => None,
    }
}

/// Whether two axes of the input are swapped.
fn axes(tensor: &Tensor, port: &Port, agrees: impl Fn(Tensor) -> bool) -> Option<String> {
    let rank = tensor.shape.len();
    let pairs = (1..rank).flat_map(|a| (a + 1..rank).map(move |b| (a, b)));
    let fitting =
        pairs.map(|(a, b)| (a, b, swapped(tensor, a, b))).filter(|(_, _, tried)| port.fits_rows(&tried.shape));
    let (a, b, _) = fitting.take(16).find(|(_, _, tried)| agrees(tried.clone()))?;
    Some(format!(
        "with the axes {a} and {b} of input {:?} swapped the model agrees: one of the two is transposed",
        port.name
    ))
}

/// Whether the input is in another unit.
fn unit(tensor: &Tensor, port: &Port, agrees: impl Fn(Tensor) -> bool) -> Option<String> {
    let floats = matches!(tensor.data, Data::F32(_) | Data::F64(_));
    let pairs = UNITS.iter().flat_map(|a| UNITS.iter().map(move |b| (a, b))).filter(|(a, b)| a != b);
    let (a, b) = pairs.filter(|_| floats).find(|(a, b)| agrees(scaled(tensor, **a / **b)))?;
    Some(format!(
        "with input {:?} times {a}/{b} the model agrees: compare the scale in pre.json with that of the training",
        port.name
    ))
}

fn swapped(tensor: &Tensor, a: usize, b: usize) -> Tensor {
    let mut strides: Vec<usize> = vec![1; tensor.shape.len()];
    for axis in (0..tensor.shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * tensor.shape[axis + 1];
    }
    let mut shape = tensor.shape.clone();
    shape.swap(a, b);
    strides.swap(a, b);
    let offset = |mut index: usize| {
        let steps = shape.iter().zip(&strides).rev().map(|(length, stride)| {
            let at = index % length;
            index /= length;
            at * stride
        });
        steps.sum::<usize>()
    };
    let order: Vec<usize> = (0..tensor.len()).map(offset).collect();
    let data = each!(&tensor.data, values => order.iter().filter_map(|at| values.get(*at).cloned()).collect::<Vec<_>>().into());
    Tensor { shape, data }
}

fn scaled(tensor: &Tensor, by: f64) -> Tensor {
    let data = Data::F64(tensor.to_f64().into_iter().map(|x| x * by).collect());
    Tensor { shape: tensor.shape.clone(), data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Load, floats, graph, node, weights};

    const TOLERANCE: Tolerance = Tolerance { abs: 1e-5, rel: 1e-4 };

    fn golden(x: Tensor, y: Tensor) -> Golden {
        Golden { inputs: vec![(String::new(), x)], outputs: vec![(String::new(), y)] }
    }

    #[test]
    fn swapped_axes_are_found() {
        let tensor = floats(&[1, 2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(swapped(&tensor, 1, 2), floats(&[1, 3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
        let model = testing::identity(&[None, Some(2), Some(2)]).load().unwrap();
        let (x, y) = (floats(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]), floats(&[1, 2, 2], &[1.0, 3.0, 2.0, 4.0]));
        let told = golden(x.clone(), y).suspect(&model, TOLERANCE).unwrap();
        assert!(told.contains("axes 1 and 2 of input \"x\""), "{told}");
        let other = floats(&[1, 2, 2], &[9.0, 3.0, 2.0, 4.0]);
        assert_eq!(golden(x, other).suspect(&model, TOLERANCE), None);
    }

    #[test]
    fn channels_in_the_wrong_place_are_found() {
        let model = testing::identity(&[None, Some(3), Some(4), Some(5)]).load().unwrap();
        let told = |shape: &[usize]| golden(floats(shape, &[0.0; 60]), floats(&[1], &[0.0])).suspect(&model, TOLERANCE);
        assert!(told(&[1, 4, 5, 3]).unwrap().contains("channels last, and the model takes [?, 3, 4, 5]"));
        assert_eq!(told(&[1, 60]), None);
    }

    #[test]
    fn another_unit_is_found() {
        let model = testing::adder().load().unwrap();
        let told = golden(floats(&[1, 2], &[1.0, 2.0]), floats(&[1, 2], &[256.0, 520.0])).suspect(&model, TOLERANCE);
        assert!(told.as_ref().is_some_and(|told| told.contains("times 255/1 ")), "{told:?}");
    }

    #[test]
    fn classes_in_another_order_are_found() {
        let swap = weights("w", &[2, 2], &[0.0, 1.0, 1.0, 0.0]);
        let model = graph(vec![node("MatMul", &["x", "w"], &["y"])], vec![swap]).load().unwrap();
        // Three rows, so that no unit explains it.
        let x = floats(&[3, 2], &[1.0, 5.0, -2.0, 7.0, 3.0, 4.0]);
        let told = golden(x.clone(), x).suspect(&model, TOLERANCE).unwrap();
        assert!(told.contains("class 0 of the reference is class 1 of the model"), "{told}");
    }
}
