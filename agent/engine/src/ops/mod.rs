//! The operators that the inference library lacks or does badly, through its own
//! extension point.
//!
//! Decides which operators are ours; each room below knows one family: how its
//! attributes are read and checked, and how it computes. Nothing here knows files,
//! bundles or processing.

mod labels;
mod post_transform;
mod tree;

use tract_onnx::Onnx;

/// The library as this engine uses it: its operators, with ours in their place.
pub(crate) fn library() -> Onnx {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    tree::register(&mut onnx);
    onnx
}
