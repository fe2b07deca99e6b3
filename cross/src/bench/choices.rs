//! The agent's program for 64-bit ARM, built in other ways: what each choice of cargo's profile `board` costs and gains.
//!
//! Decides what is tried. Each way is a build of everything, so this takes hours.

use super::{Asked, Row, instructions};
use crate::cross::Wanted;
use crate::size::Size;
use board::Target;

/// What the page says of it.
pub(super) const ABOUT: &str = "The agent's program for 64-bit ARM with one line of cargo's profile `board` changed: what it weighs, and the instructions of an answer, the geometric mean of all \
example models, over those of the profile as it is (the bench `arm` says how both are found). The two features that a board may do without are in `arm`. \
`panic = \"abort\"` is there to show what unwinding costs: the engine needs it (decision 0047).";

/// What is changed, in words and as cargo takes it.
type Choice = (&'static str, &'static [(&'static str, &'static str)]);
const AS_IT_IS: Choice = ("as it is: `lto = \"fat\"`, `opt-level = \"s\"` but for kernels", &[]);
const OTHERS: [Choice; 4] = [
    ("`lto = \"thin\"`", &[("LTO", "thin")]),
    ("`opt-level = \"z\"` but for kernels", &[("OPT_LEVEL", "z")]),
    ("`opt-level = 3` for all", &[("OPT_LEVEL", "3")]),
    ("`panic = \"abort\"`", &[("PANIC", "abort")]),
];
const MB: f64 = 1e6;

pub(super) fn run(_: Asked) -> anyhow::Result<Vec<Row>> {
    let (size, base) = tried(AS_IT_IS)?;
    let mut rows = vec![Row::new(AS_IT_IS.0, size, "MB")];
    for choice in OTHERS {
        let (size, counts) = tried(choice)?;
        let shares: Vec<f64> = counts.iter().zip(&base).map(|(count, base)| count / base).collect();
        let [least, most] = [f64::min, f64::max].map(|which| shares.iter().copied().reduce(which).unwrap_or(f64::NAN));
        let mean = (shares.iter().map(|share| share.ln()).sum::<f64>() / shares.len() as f64).exp();
        rows.push(Row::new(choice.0, size, "MB"));
        let beside = format!("from {least:.2} to {most:.2}");
        rows.push(Row::new(&format!("{}: instructions an answer", choice.0), mean, "x").beside(&beside));
    }
    Ok(rows)
}

/// MB of the program, and instructions an answer of each example model.
fn tried((name, settings): Choice) -> anyhow::Result<(f64, Vec<f64>)> {
    eprintln!("{name}");
    let wanted = Wanted { name: "tried".to_owned(), settings, ..Wanted::all(Target::Aarch64, false) };
    let (program, example) = wanted.build_with(instructions::PROGRAM)?;
    Ok((Size::of(&program)?.file as f64 / MB, instructions::of(&example, program.tools.libraries())?))
}
