//! Resizing that keeps the corners in their places.
//!
//! Decides what is refused: between lengths of which the second is cut to a whole number, ONNX's definition and
//! those who train and run such models (PyTorch, ONNX Runtime) put the last corner in different places, and the library
//! follows the definition. Knows nothing of how a picture is resized.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::nn::resize::CoordTransformer;
use tract_onnx::tract_hir::internal::*;
use tract_onnx_opl::resize::{CoordTransform, Resize};

/// A length that is nearer than this to a whole number is one.
const WHOLE: f64 = 1e-4;

/// # Errors
/// When a node aligns corners by scales that lead to no whole length.
pub(super) fn check(model: &TypedModel) -> TractResult<()> {
    for node in &model.nodes {
        let Some(op) = node.op_as::<Resize>() else { continue };
        let Some(scales) = op.optional_scales_input else { continue };
        let Some(scales) = &model.outlet_fact(node.inputs[scales])?.konst else { continue };
        if !matches!(op.coord_transformer, CoordTransform::Plain(CoordTransformer::AlignCorners)) {
            continue;
        }
        let shape = &model.outlet_fact(node.inputs[0])?.shape;
        let axes = op.resized_axes(shape.rank())?;
        let scales = scales.cast_to::<f32>()?;
        for (axis, scale) in axes.iter().zip(scales.try_as_plain_ram()?.as_slice::<f32>()?) {
            let scale = f64::from(*scale);
            // A length that is not known is only resized by whole scales, which are no trouble.
            let length = shape[*axis].to_usize().map_or(scale, |length| length as f64 * scale);
            ensure!(
                (length - length.round()).abs() < WHOLE,
                "Resize {:?} aligns corners over {length} elements, which ONNX and ONNX Runtime understand differently; \
                 export it with sizes instead of scales",
                node.name
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::tensor_proto::DataType;
    use tract_onnx::pb::{GraphProto, ModelProto};

    use crate::testing::{self, Load, attribute, floats, node, port};

    /// Four elements in a row, resized by these scales.
    fn resized(mode: &str, scale: f32) -> ModelProto {
        let mut resize = node("Resize", &["x", "", "s"], &["y"]);
        resize.attribute = vec![attribute("mode", "linear"), attribute("coordinate_transformation_mode", mode)];
        testing::model(GraphProto {
            node: vec![resize],
            initializer: vec![testing::weights("s", &[4], &[1.0, 1.0, 1.0, scale])],
            input: vec![port("x", DataType::Float, &[None, Some(1), Some(1), Some(4)])],
            output: vec![port("y", DataType::Float, &[None, Some(1), Some(1), None])],
            ..Default::default()
        })
    }

    #[test]
    fn corners_are_aligned_between_whole_lengths_only() {
        let error = resized("align_corners", 0.6).load().unwrap_err().to_string();
        assert!(error.contains("export it with sizes instead of scales"), "{error}");
        for (mode, scale, expected) in [
            ("align_corners", 0.5, &[0.0, 3.0][..]),
            ("align_corners", 1.75, &[0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]),
            ("half_pixel", 0.6, &[1.0 / 3.0, 2.0]),
        ] {
            let answer = resized(mode, scale).load().unwrap().run(&[floats(&[1, 1, 1, 4], &[0.0, 1.0, 2.0, 3.0])]);
            let answer = answer.unwrap().remove(0);
            for (got, expected) in answer.as_f32().iter().zip(expected) {
                assert!((got - expected).abs() < 1e-5, "{mode} by {scale}: {answer:?}");
            }
            assert_eq!(answer.len(), expected.len());
        }
    }
}
