//! What shape an operator makes of the shapes that it is given.
//!
//! Decides it for the operators by which small tensors grow large: those that put together, spread, look up or
//! multiply, and those that pass a shape on. A shape here is never more than there will be: a free axis counts
//! as one, and `None` is what is not known. Knows no values.

use tract_onnx::pb::NodeProto;

type Shape = Vec<usize>;

/// The shape of a node's first output, by the shapes of its inputs.
pub(crate) fn made(node: &NodeProto, shape: impl Fn(usize) -> Option<Shape>) -> Option<Shape> {
    let int = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name).map(|found| found.i);
    let all = || (0..node.input.len()).map(&shape).collect::<Option<Vec<Shape>>>();
    match &*node.op_type {
        "Identity" | "Cast" | "Neg" | "Abs" | "Relu" | "Sigmoid" | "Tanh" | "Exp" | "Log" | "Sqrt" | "Floor"
        | "Ceil" | "Round" | "Sign" | "Not" | "Clip" | "Softmax" | "Erf" | "Reciprocal" => shape(0),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Max" | "Min" | "Sum" | "Mean" | "And" | "Or" | "Xor"
        | "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "Where" | "PRelu" | "BitwiseAnd"
        | "BitwiseOr" | "BitwiseXor" => Some(all()?.into_iter().fold(Shape::new(), spread)),
        "Concat" => concatenated(all()?, int("axis")?),
        "Gather" => {
            let (mut data, indices) = (shape(0)?, shape(1)?);
            let axis = place(int("axis").unwrap_or(0), data.len())?;
            data.splice(axis..=axis, indices);
            Some(data)
        }
        "MatMul" => product(shape(0)?, shape(1)?),
        "Gemm" => {
            let side = |at, turned: &str, axis: usize| {
                shape(at)?.get(if int(turned) == Some(1) { 1 - axis } else { axis }).copied()
            };
            Some(vec![side(0, "transA", 0)?, side(1, "transB", 1)?])
        }
        "Transpose" => {
            let given = shape(0)?;
            let order = node.attribute.iter().find(|attribute| attribute.name == "perm");
            let turned = |perm: &Vec<i64>| {
                perm.iter().map(|axis| given.get(usize::try_from(*axis).ok()?).copied()).collect::<Option<Shape>>()
            };
            order.map_or(Some(given.iter().rev().copied().collect()), |order| turned(&order.ints))
        }
        "Einsum" => {
            let equation = node.attribute.iter().find(|attribute| attribute.name == "equation")?;
            summed(std::str::from_utf8(&equation.s).ok()?, &all()?)
        }
        _ => None,
    }
}

/// Two shapes, each spread over the other's axes.
fn spread(a: Shape, b: Shape) -> Shape {
    let rank = a.len().max(b.len());
    let axis = |shape: &Shape, at: usize| (at + shape.len()).checked_sub(rank).map_or(1, |at| shape[at]);
    (0..rank).map(|at| axis(&a, at).max(axis(&b, at))).collect()
}

fn concatenated(parts: Vec<Shape>, axis: i64) -> Option<Shape> {
    let mut parts = parts.into_iter();
    let mut whole = parts.next()?;
    let axis = place(axis, whole.len())?;
    for part in parts {
        whole[axis] = whole[axis].saturating_add(*part.get(axis)?);
    }
    Some(whole)
}

fn product(mut a: Shape, mut b: Shape) -> Option<Shape> {
    if a.len() < 2 || b.len() < 2 {
        return None;
    }
    let (columns, _, _, rows) = (b.pop()?, b.pop()?, a.pop()?, a.pop()?);
    let mut made = spread(a, b);
    made.extend([rows, columns]);
    Some(made)
}

/// By an equation such as `ij,jk->ik`; one that leaves its result unsaid is not known.
fn summed(equation: &str, given: &[Shape]) -> Option<Shape> {
    let (inputs, output) = equation.split_once("->")?;
    let length = |label: char| {
        let of = |(labels, shape): (&str, &Shape)| {
            let at = labels.chars().filter(|c| !c.is_whitespace()).position(|c| c == label)?;
            shape.get(at).copied()
        };
        inputs.split(',').zip(given).filter_map(of).max()
    };
    output.chars().filter(|c| !c.is_whitespace()).map(length).collect()
}

/// An axis counted from the front.
fn place(axis: i64, rank: usize) -> Option<usize> {
    let at = if axis < 0 { axis.checked_add(i64::try_from(rank).ok()?)? } else { axis };
    usize::try_from(at).ok().filter(|at| *at < rank)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::LoadError;
    use crate::testing::{Load, graph, node, weights};
    use tract_onnx::pb::AttributeProto;

    fn with(mut node: NodeProto, name: &str, set: impl FnOnce(&mut AttributeProto)) -> NodeProto {
        let mut attribute = AttributeProto { name: name.to_owned(), ..Default::default() };
        set(&mut attribute);
        node.attribute.push(attribute);
        node
    }

    fn of(node: &NodeProto, shapes: &[&[usize]]) -> Option<Shape> {
        made(node, |at| shapes.get(at).map(|shape| shape.to_vec()))
    }

    #[test]
    fn shapes_grow_as_the_operators_say() {
        let two = |operator: &str| node(operator, &["a", "b"], &["y"]);
        let axis = |operator: &str, at: i64| with(two(operator), "axis", |a| a.i = at);
        assert_eq!(of(&two("Add"), &[&[5, 1], &[7]]), Some(vec![5, 7]));
        assert_eq!(of(&two("Add"), &[&[5, 1]]), None);
        assert_eq!(of(&axis("Concat", -1), &[&[2, 3], &[2, 4]]), Some(vec![2, 7]));
        assert_eq!(of(&axis("Concat", 2), &[&[2, 3], &[2, 4]]), None);
        assert_eq!(of(&axis("Gather", 1), &[&[2, 3, 4], &[9, 8]]), Some(vec![2, 9, 8, 4]));
        assert_eq!(of(&two("MatMul"), &[&[6, 1, 2, 3], &[5, 3, 4]]), Some(vec![6, 5, 2, 4]));
        assert_eq!(of(&with(two("Gemm"), "transB", |a| a.i = 1), &[&[2, 3], &[4, 3]]), Some(vec![2, 4]));
        let einsum = with(two("Einsum"), "equation", |a| a.s = b"i, j -> ij".to_vec());
        assert_eq!(of(&einsum, &[&[7], &[8]]), Some(vec![7, 8]));
        let turn = with(node("Transpose", &["a"], &["y"]), "perm", |a| a.ints = vec![1, 0, 2]);
        assert_eq!(of(&turn, &[&[2, 3, 4]]), Some(vec![3, 2, 4]));
    }

    #[test]
    fn what_doubles_at_each_step_is_refused_before_it_is_made() {
        let name = |at: usize| if at == 0 { "w".to_owned() } else { format!("t{at}") };
        let double = |at: usize| {
            let (from, to) = (name(at), name(at + 1));
            with(node("Concat", &[&from, &from], &[&to]), "axis", |a| a.i = 0)
        };
        let mut nodes: Vec<NodeProto> = (0..40).map(double).collect();
        nodes.push(node("Add", &["x", "t40"], &["y"]));
        let error = graph(nodes, vec![weights("w", &[1, 2], &[1.0, 2.0])]).load().unwrap_err();
        assert!(matches!(&error, LoadError::TooLarge { what, .. } if what.contains("Concat")), "{error}");
    }
}
