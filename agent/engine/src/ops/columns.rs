//! Operators that pass columns on: FeatureVectorizer and ZipMap.
//!
//! Decides that a sequence of maps is given as the plain tensor it was made of: the
//! same numbers, in the order of the labels. Knows no arithmetic.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, float_rows, matrix, numeric, only, operator, rows, tensor, values};
use super::labels::Labels;

/// Puts inputs of these widths beside one another.
#[derive(Debug)]
struct Beside(Vec<usize>);

pub(super) fn feature_vectorizer(_: &ParsingContext, node: &NodeProto) -> Built {
    let widths = node.get_attr_vec::<usize>("inputdimensions")?;
    let (count, given) = (widths.len(), node.input.len());
    ensure!(count == given, "FeatureVectorizer: inputdimensions has {count} values for {given} inputs");
    let total = widths.iter().try_fold(0usize, |sum, width| sum.checked_add(*width));
    ensure!(total.is_some_and(|total| total > 0), "FeatureVectorizer: inputdimensions has no sum that is a width");
    operator(node, Beside(widths))
}

impl Kernel for Beside {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == self.0.len(), "it takes {} inputs, not {}", self.0.len(), inputs.len());
        let mut count = None;
        for (input, width) in inputs.iter().zip(&self.0) {
            numeric(input.datum_type)?;
            let rows = rows(input, *width)?;
            count.get_or_insert(rows);
        }
        let count = count.context("it has no input")?;
        Ok(tvec!(f32::fact([count, self.0.iter().sum::<usize>().to_dim()])))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let parts = inputs.iter().zip(&self.0).map(|(input, width)| float_rows(input, *width));
        let parts = parts.collect::<TractResult<Vec<_>>>()?;
        let rows = parts.first().context("it has no input")?.0;
        ensure!(parts.iter().all(|part| part.0 == rows), "its inputs have different numbers of rows");
        let total: usize = self.0.iter().sum();
        let mut all = Vec::with_capacity(rows * total);
        for row in 0..rows {
            for ((_, part), width) in parts.iter().zip(&self.0) {
                all.extend_from_slice(&values::<f32>(part)?[row * width..][..*width]);
            }
        }
        Ok(tvec!(tensor(&[rows, total], all)?))
    }
}

/// Passes the scores of this many classes on.
#[derive(Debug)]
struct Unzipped(usize);

pub(super) fn zip_map(_: &ParsingContext, node: &NodeProto) -> Built {
    operator(node, Unzipped(Labels::read(node)?.len()))
}

impl Kernel for Unzipped {
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let input = only(inputs)?;
        let rows = rows(input, self.0)?;
        Ok(tvec!(input.datum_type.fact([rows, self.0.to_dim()])))
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = only(inputs)?;
        let (rows, columns) = matrix(input.shape(), 1)?;
        ensure!(columns == self.0, "it has {} labels for {columns} columns", self.0);
        Ok(tvec!(input.clone().into_tensor().into_shape(&[rows, columns])?))
    }
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::tensor_proto::DataType;

    use crate::ops::testing::{close, ints, refusal, row, run};
    use crate::testing::{Load, attribute, floats, graph, node, port};

    #[test]
    fn features_come_to_stand_beside_one_another() {
        let mut proto = graph(vec![node("FeatureVectorizer", &["x", "z"], &["y"])], vec![]);
        let main = proto.graph.as_mut().unwrap();
        main.input.push(port("z", DataType::Int64, &[None, Some(1)]));
        main.node[0].attribute = vec![attribute("inputdimensions", vec![2i64, 1])];
        let inputs = [floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), ints(&[2, 1], &[5, 6])];
        let got = proto.load().unwrap().run(&inputs).unwrap();
        close(&got[0], &[2, 3], &[1.0, 2.0, 5.0, 3.0, 4.0, 6.0]);
    }

    #[test]
    fn a_map_is_given_as_its_columns() {
        let labels = vec![attribute("classlabels_strings", vec!["a", "b"])];
        close(&run("ZipMap", 1, floats(&[2, 2], &[0.1, 0.9, 0.7, 0.3]), labels)[0], &[2, 2], &[0.1, 0.9, 0.7, 0.3]);
    }

    #[test]
    fn attributes_that_cannot_be_meant_are_refused() {
        for (name, attributes, why) in [
            ("ZipMap", vec![], "does not name its classes"),
            ("ZipMap", vec![attribute("classlabels_int64s", vec![1i64; 3])], "made for 3 features"),
            ("FeatureVectorizer", vec![attribute("inputdimensions", vec![i64::MAX])], "and the input has 2"),
            ("FeatureVectorizer", vec![attribute("inputdimensions", vec![1i64, 1])], "2 values for 1 inputs"),
            ("FeatureVectorizer", vec![attribute("inputdimensions", vec![0i64])], "no sum"),
        ] {
            let reason = refusal(name, row(&[0.0, 0.0]), attributes);
            assert!(reason.contains(why), "{reason:?} does not say {why:?}");
        }
    }
}
