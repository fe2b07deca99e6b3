//! `petrel drift compare`: the rows of one file against those of another.
//!
//! Decides how figures look to a person. How they are made is decided by `drift`; docs/drift.md has the conventions.

use super::short;
use crate::bundle;
use crate::cli::Out;
use crate::cli::table::table;
use comfy_table::Table;
use drift::{Comparison, Doubt, Figures, Finding};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Two files.
#[derive(Debug, clap::Args)]
pub(super) struct Compare {
    /// What drift is told from: rows (.csv or .npy)
    #[arg(long, value_name = "FILE")]
    baseline: PathBuf,
    /// What may have drifted: rows with the same columns
    #[arg(long, value_name = "FILE")]
    window: PathBuf,
    /// A column to leave out [may be repeated]
    #[arg(long, value_name = "COLUMN")]
    ignore: Vec<String>,
}

impl Compare {
    /// Compares.
    ///
    /// # Errors
    /// When a table cannot be read or the two do not suit each other.
    pub(super) fn run(&self, out: &Out) -> anyhow::Result<()> {
        let (before, now) = (bundle::Rows::read(&self.baseline)?, bundle::Rows::read(&self.window)?);
        let found = before.compare(&now, &self.ignore)?;
        out.result(&machine(&found)?, people(&found))
    }
}

fn machine(found: &Comparison) -> anyhow::Result<Value> {
    let mut features = Vec::new();
    for (figures, finding) in found.by_feature() {
        let mut feature = serde_json::to_value(figures)?;
        feature["finding"] = serde_json::to_value(finding)?;
        features.push(feature);
    }
    let judged = &found.judgement;
    Ok(json!({ "level": judged.level, "rows": judged.rows, "doubts": judged.doubts, "features": features }))
}

fn people(found: &Comparison) -> String {
    let mut text = sheet(found).trim_fmt();
    let doubts = found.judgement.doubts.iter().map(|doubt| match doubt {
        Doubt::FewRows => format!("fewer than {} rows: nothing is decided", drift::LEAST_ROWS),
        Doubt::LargerThanBaseline => "the window has more rows than the baseline: it warns at most".to_owned(),
        Doubt::Learning => "how the features vary is not known yet: it warns at most".to_owned(),
    });
    for doubt in doubts {
        text.push_str(&format!("\n\n{doubt}"));
    }
    text.push_str("\n\nPSI, JS, KS and Wasserstein are shown and never alarmed on; --json has every figure.");
    text
}

fn sheet(found: &Comparison) -> Table {
    let header =
        ["feature", "level", "likely cause", "p", "effect", "missing", "mean", "PSI", "JS", "KS", "Wasserstein"];
    table(header, found.by_feature().map(|(figures, finding)| row(figures, finding)))
}

fn row(figures: &Figures, finding: &Finding) -> [String; 11] {
    let missing = |side: &drift::Side| {
        let holes = side.missing + side.plus_inf + side.minus_inf;
        if side.count == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * holes as f64 / side.count as f64) }
    };
    [
        figures.name.clone(),
        finding.level.to_string(),
        finding.cause.map(|cause| cause.to_string()).unwrap_or_default(),
        chance(finding.p),
        format!("{:.2}", finding.effect),
        format!("{} > {}", missing(&figures.baseline), missing(&figures.window)),
        format!("{} > {}", short(figures.baseline.mean), short(figures.window.mean)),
        short(figures.psi),
        short(figures.jensen_shannon),
        short(figures.ks),
        short(figures.wasserstein),
    ]
}

fn chance(p: f64) -> String {
    match p {
        0.001.. => format!("{p:.3}"),
        1e-99.. => format!("{p:.0e}"),
        _ => "<1e-99".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drift::{Column, Pair};

    #[test]
    fn a_person_sees_what_changed_and_what_is_only_shown() {
        let before: Vec<f32> = (0..1_000).map(|x| x as f32).collect();
        let (now, still) = ([f32::NAN; 100], &before[400..500]);
        let columns = Column::Numbers;
        let found = drift::compare(&[
            Pair { name: "gone", baseline: columns(&before), window: columns(&now) },
            Pair { name: "narrow", baseline: columns(&before), window: columns(still) },
        ]);
        let found = found.unwrap();
        let text = people(&found);
        for part in
            ["missing: 100.0 %", "the population moved", "page", "0.0 % > 100.0 %", "499.500 > -", "never alarmed"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let machine = machine(&found).unwrap();
        assert_eq!(machine["level"], "page");
        assert_eq!(machine["features"][0]["finding"]["cause"]["kind"], "missing");
        assert!(machine["features"][1]["smooth"]["p"].is_f64() && machine["features"][0]["smooth"].is_null());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.25, 1e-7, 3e8].map(|x| short(Some(x))), ["0.000", "0.250", "1.00e-7", "3.00e8"]);
        assert_eq!([0.0312, 2.3e-9, 0.0].map(chance), ["0.031", "2e-9", "<1e-99"]);
        assert_eq!(short(None), "-");
    }
}
