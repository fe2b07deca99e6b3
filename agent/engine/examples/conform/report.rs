//! What is made of the verdicts: the totals, the table of operators, and the promises that must hold.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::sides::{Outcome, Verdict};

/// One case: as it is, and with its parameters as weights.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) operators: Vec<String>,
    pub(crate) tract: [Verdict; 2],
    pub(crate) petrel: [Verdict; 2],
}

pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
}

/// Of one side and one way to give the parameters.
#[derive(Debug, Serialize)]
struct Total {
    outcomes: BTreeMap<Outcome, usize>,
    /// Of a hundred cases.
    pass: f64,
    accepted: usize,
}

#[derive(Debug, Serialize)]
struct Totals {
    cases: usize,
    tract_strict: Total,
    tract_folded: Total,
    petrel_strict: Total,
    petrel_folded: Total,
}

/// The cases of one operator.
#[derive(Default)]
struct Tally {
    cases: usize,
    strict: usize,
    folded: usize,
    reasons: BTreeMap<String, usize>,
}

impl Report {
    /// A JSON line for every case.
    pub(crate) fn lines(&self) -> serde_json::Result<String> {
        self.rows.iter().map(|row| Ok(serde_json::to_string(row)? + "\n")).collect()
    }

    /// One JSON line.
    pub(crate) fn totals(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Totals {
            cases: self.rows.len(),
            tract_strict: self.total(|row| &row.tract[0]),
            tract_folded: self.total(|row| &row.tract[1]),
            petrel_strict: self.total(|row| &row.petrel[0]),
            petrel_folded: self.total(|row| &row.petrel[1]),
        })
    }

    fn total(&self, side: impl Fn(&Row) -> &Verdict) -> Total {
        let mut outcomes = BTreeMap::new();
        for row in &self.rows {
            *outcomes.entry(side(row).outcome).or_insert(0) += 1;
        }
        let passed = outcomes.get(&Outcome::Pass).copied().unwrap_or(0);
        let share = passed as f64 / self.rows.len().max(1) as f64;
        let accepted = self.rows.iter().filter(|row| side(row).accepted).count();
        Total { outcomes, pass: (share * 1000.0).round() / 10.0, accepted }
    }

    /// The promises that these verdicts break.
    pub(crate) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (way, as_weights) in ["as it is", "with parameters as weights"].into_iter().enumerate() {
            for row in &self.rows {
                let verdict = &row.petrel[way];
                let (name, reason) = (&row.name, &verdict.reason);
                if matches!(verdict.outcome, Outcome::Panic | Outcome::Abort | Outcome::Timeout) {
                    broken.push(format!("{name} {as_weights}: {:?} reaches the caller: {reason}", verdict.outcome));
                }
                if let Some(fault) = &verdict.fault {
                    broken.push(format!("{name} {as_weights}: packing accepts what is wrong: {fault}"));
                }
                let classical = row.operators.iter().any(|operator| operator.starts_with("ai.onnx.ml."));
                if classical && verdict.outcome != Outcome::Pass {
                    broken.push(format!("{name} {as_weights}: {:?}: {reason}", verdict.outcome));
                }
            }
            let passed = |side: fn(&Row) -> &[Verdict; 2]| {
                self.rows.iter().filter(|row| side(row)[way].outcome == Outcome::Pass).count()
            };
            let (ours, theirs) = (passed(|row| &row.petrel), passed(|row| &row.tract));
            if ours < theirs {
                broken.push(format!("{as_weights} we pass {ours} cases, and the library alone {theirs}"));
            }
        }
        broken
    }

    /// `docs/operators.md`.
    pub(crate) fn operators(&self) -> String {
        let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.kind == "node") {
            let [operator] = &row.operators[..] else { continue };
            let tally = tallies.entry(operator).or_default();
            tally.cases += 1;
            tally.strict += usize::from(row.petrel[0].outcome == Outcome::Pass);
            tally.folded += usize::from(row.petrel[1].outcome == Outcome::Pass);
            if row.petrel[1].outcome != Outcome::Pass {
                let reason = format!("{:?}", row.petrel[1].outcome).to_lowercase();
                *tally.reasons.entry(reason).or_default() += 1;
            }
        }
        let mut text = HEADING.to_owned();
        let whole = tallies.iter().filter(|(_, tally)| tally.folded == tally.cases);
        let names: Vec<String> = whole.map(|(name, tally)| format!("{name} ({})", tally.cases)).collect();
        let _ = writeln!(text, "\n## Pass all their cases\n\n{}", names.join(", "));
        let _ = writeln!(text, "\n## Pass some or none\n\n| operator | cases | pass | the others |\n|---|---|---|---|");
        for (name, tally) in tallies.iter().filter(|(_, tally)| tally.folded < tally.cases) {
            let others: Vec<String> = tally.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            let _ = writeln!(text, "| {name} | {} | {} | {} |", tally.cases, tally.folded, others.join(", "));
        }
        text
    }
}

const HEADING: &str = "# Operators

Which operators of ONNX pass the conformance cases of the `onnx` package in this engine (in brackets: how many cases).
Shapes, axes and other parameters are given as weights, as exporters write them. What is refused is refused when the
model is packed; a wrong answer is refused there by its golden vectors. Written and checked by `cargo xtask oracles onnx`.
";
