//! The operators that the inference library lacks or does badly, through its own
//! extension point.
//!
//! Decides which operators are ours; each room below knows one family: how its
//! attributes are read and checked, and how it computes. Nothing here knows files,
//! bundles or processing.

mod depthwise;
mod recurrent;

use tract_onnx::Onnx;
use tract_onnx::prelude::{TractResult, TypedModel};

/// The library as this engine uses it: its operators, with ours in their place.
pub(crate) fn library() -> Onnx {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    recurrent::register(&mut onnx.op_register);
    onnx
}

/// Simplifies a model as the library does, and puts our operators in the place of
/// those that it does badly. The answers stay the same, but for rounding.
pub(crate) fn rewrite(model: TypedModel) -> TractResult<TypedModel> {
    let mut model = model.into_decluttered()?;
    depthwise::rewrite(&mut model)?;
    Ok(model)
}
