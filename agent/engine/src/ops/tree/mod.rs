//! Ensembles of decision trees: forests, boosted trees, isolation forests.
//!
//! Decides that a tree is laid out flat and walked by index, in the place of the
//! library's own operator, which takes hundreds of times as long. The rooms below go
//! one way: `attributes` and `attributes_v5` read what a file says, `layout` checks
//! that it is trees and lays them out, `walk` finds and adds up the leaves of rows,
//! `finish` makes scores and classes of the sums, `operator` is the library's view of
//! it all. What is counted where the specification is silent is ONNX Runtime's habit.

mod attributes;
mod attributes_v5;
mod finish;
mod layout;
mod operator;
#[cfg(test)]
mod tests;
mod walk;

pub(super) use operator::register;
