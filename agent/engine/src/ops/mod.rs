//! The operators that the inference library lacks or does badly, through its own
//! extension point.
//!
//! Decides which operators are ours; each room below knows one family: how its
//! attributes are read and checked, and how it computes. Nothing here knows files,
//! bundles or processing.

mod columns;
mod coupling;
mod dense;
mod dequantize;
mod direct;
mod exponents;
mod kernel;
mod labels;
mod likeness;
mod linear;
mod lookup;
mod post_transform;
mod product;
mod recurrent;
mod resize;
mod scale;
mod standard;
mod svm;
#[cfg(test)]
mod testing;
mod tree;
mod whole;

use tract_onnx::Onnx;
use tract_onnx::prelude::{TractResult, TypedModel};

pub(crate) use standard::rewrite as rewrite_nodes;

/// The library as this engine uses it: its operators, with ours in their place.
pub(crate) fn library() -> Onnx {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    let register = &mut onnx.op_register;
    register.insert("ArrayFeatureExtractor", lookup::array_feature_extractor);
    register.insert("Binarizer", scale::binarizer);
    register.insert("Celu", exponents::celu);
    register.insert("LogSoftmax", exponents::log_softmax);
    register.insert("ReduceLogSumExp", exponents::log_sum_exp);
    register.insert("Softplus", exponents::softplus);
    register.insert("CategoryMapper", lookup::category_mapper);
    register.insert("FeatureVectorizer", columns::feature_vectorizer);
    register.insert("Imputer", scale::imputer);
    register.insert("LabelEncoder", lookup::label_encoder);
    register.insert("LinearClassifier", linear::classifier);
    register.insert("LinearRegressor", linear::regressor);
    register.insert("Normalizer", scale::normalizer);
    register.insert("OneHotEncoder", lookup::one_hot_encoder);
    register.insert("ReverseSequence", standard::reverse_sequence);
    register.insert("SVMClassifier", svm::classifier);
    register.insert("SVMRegressor", svm::regressor);
    register.insert("Scaler", scale::scaler);
    register.insert("Upsample", standard::upsample);
    register.insert("ZipMap", columns::zip_map);
    register.insert(standard::REVERSE, standard::reverse);
    register.insert("LpPool", standard::rewritten);
    dequantize::register(register);
    recurrent::register(register);
    tree::register(&mut onnx);
    onnx
}

/// What must hold of a model before the library simplifies it: our operators in the place of those of its own that are
/// wrong, and none that is refused.
///
/// # Errors
/// When an operator would answer otherwise than it should.
pub(crate) fn mend(model: &mut TypedModel) -> TractResult<()> {
    resize::check(model)?;
    whole::rewrite(model)
}

/// Simplifies a model as the library does, and puts our operators in the place of
/// those that it does badly. The answers stay the same, but for rounding.
pub(crate) fn rewrite(mut model: TypedModel) -> TractResult<TypedModel> {
    direct::keep(&mut model)?;
    let mut model = model.into_decluttered()?;
    direct::rewrite(&mut model)?;
    if direct::release(&mut model) {
        model = model.into_decluttered()?;
    }
    dense::rewrite(&mut model)?;
    Ok(model)
}
