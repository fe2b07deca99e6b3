//! The names of a classifier's classes.
//!
//! Decides how a node names its classes, as whole numbers or as text, and makes the
//! tensor of labels. Does not know how a class is chosen.

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// The names of the classes, in the order of their scores.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Labels {
    /// Whole numbers.
    Ints(Vec<i64>),
    /// Text.
    Texts(Vec<String>),
}

impl Labels {
    /// The node's `classlabels_int64s`, `classlabels_ints` or `classlabels_strings`.
    ///
    /// # Errors
    /// When it has none of them, or several.
    pub(super) fn read(node: &NodeProto) -> TractResult<Labels> {
        let mut found = Vec::new();
        for name in ["classlabels_int64s", "classlabels_ints"] {
            found.extend(node.get_attr_opt_vec::<i64>(name)?.map(Labels::Ints));
        }
        found.extend(node.get_attr_opt_vec::<String>("classlabels_strings")?.map(Labels::Texts));
        found.retain(|labels| labels.len() > 0);
        let labels = found.pop();
        match labels {
            Some(labels) if found.is_empty() => Ok(labels),
            Some(_) => bail!("{}: it names its classes twice, as numbers and as text", node.op_type),
            None => bail!("{}: it does not name its classes (classlabels_*)", node.op_type),
        }
    }

    /// How many classes there are; never 0.
    pub(super) fn len(&self) -> usize {
        match self {
            Labels::Ints(labels) => labels.len(),
            Labels::Texts(labels) => labels.len(),
        }
    }

    /// The element type of `tensor`.
    pub(super) fn datum_type(&self) -> DatumType {
        match self {
            Labels::Ints(_) => DatumType::I64,
            Labels::Texts(_) => DatumType::String,
        }
    }

    /// The labels of these classes, each below `len()`: shape [indices].
    pub(super) fn tensor(&self, indices: &[usize]) -> Tensor {
        match self {
            Labels::Ints(labels) => tensor1(&indices.iter().map(|index| labels[*index]).collect::<Vec<_>>()),
            Labels::Texts(labels) => tensor1(&indices.iter().map(|index| labels[*index].clone()).collect::<Vec<_>>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{attribute, node};

    #[test]
    fn classes_have_one_kind_of_name() {
        let mut node = node("LinearClassifier", &["x"], &["y"]);
        let (ints, texts) = (vec![7i64, -1], vec!["cat", "dog"]);
        assert!(Labels::read(&node).unwrap_err().to_string().contains("does not name"));
        node.attribute = vec![attribute("classlabels_strings", texts)];
        let labels = Labels::read(&node).unwrap();
        assert_eq!((labels.len(), labels.datum_type()), (2, DatumType::String));
        assert_eq!(labels.tensor(&[1, 0, 1]), tensor1(&["dog".to_owned(), "cat".to_owned(), "dog".to_owned()]));
        node.attribute.push(attribute("classlabels_ints", ints.clone()));
        assert!(Labels::read(&node).unwrap_err().to_string().contains("twice"));
        node.attribute = vec![attribute("classlabels_int64s", ints)];
        assert_eq!(Labels::read(&node).unwrap().tensor(&[0]), tensor1(&[7i64]));
    }
}
