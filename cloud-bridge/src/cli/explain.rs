//! `petrel pack MODEL --explain`: what is in a model, and what to do where it cannot be run.

use super::table::table;
use super::{Out, bytes};
use crate::bundle;
use comfy_table::{Table, presets};
use engine::{Explanation, Port, Quantised};
use serde_json::json;
use std::path::Path;

/// Shows what is in the model.
///
/// # Errors
/// When it is no model at all.
pub(super) fn show(model: &Path, out: &Out) -> anyhow::Result<()> {
    let (found, peak) = bundle::explain(model)?;
    let mut machine = serde_json::to_value(&found)?;
    machine["peak_bytes"] = json!(peak);
    let mut sheet = Table::new();
    let facts = facts(&found, peak);
    sheet.load_style(presets::NOTHING).add_rows(facts.into_iter().map(|(name, value)| [name.to_owned(), value]));
    let verdict = match &found.problem {
        None => "This engine runs it. Where the time goes: petrel-agent infer BUNDLE --input FILE --profile".to_owned(),
        Some(problem) => format!("This engine does not run it: {problem}"),
    };
    out.result(&machine, format!("{}\n\n{}\n\n{verdict}", sheet.trim_fmt(), operators(&found).trim_fmt()))
}

fn facts(found: &Explanation, peak: usize) -> Vec<(&'static str, String)> {
    let plan = match found.plan {
        Some(plan) if plan.optimised => format!("optimised, {} steps", plan.steps),
        Some(plan) => format!("as exported, {} steps: the optimiser could not cope with it", plan.steps),
        None => "none".to_owned(),
    };
    let quantised = match found.quantised {
        Quantised::No => "no",
        Quantised::Qdq => "int8 between QuantizeLinear and DequantizeLinear (QDQ): smaller, not faster here",
        Quantised::Operators => "by operators of their own (QOperator)",
    };
    let ports = |ports: &[Port]| match ports {
        [] => "not known".to_owned(),
        ports => ports.iter().map(port).collect::<Vec<_>>().join(", "),
    };
    let mut facts = vec![
        ("opset", found.opset.to_string()),
        ("inputs", ports(&found.inputs)),
        ("outputs", ports(&found.outputs)),
        ("plan", plan),
        ("quantised", quantised.to_owned()),
        ("weights", bytes(found.weights_bytes)),
        ("peak memory", format!("{} to read and load it, as measured here", bytes(peak as u64))),
    ];
    if !found.data_files.is_empty() {
        facts.push(("data files", found.data_files.join(", ")));
    }
    facts
}

fn port(port: &Port) -> String {
    let axis = |axis: &Option<usize>| axis.map_or("?".to_owned(), |n| n.to_string());
    let shape: Vec<String> = port.shape.iter().map(axis).collect();
    format!("{} {} [{}]", port.name, port.dtype, shape.join(", "))
}

fn operators(found: &Explanation) -> Table {
    let row = |usage: &engine::Usage| {
        let known = if usage.known { "yes" } else { "no" };
        [usage.operator.clone(), usage.count.to_string(), known.to_owned(), usage.remedy.unwrap_or_default().to_owned()]
    };
    table(["OPERATOR", "NODES", "KNOWN", "WHAT TO DO"], found.operators.iter().map(row))
}
