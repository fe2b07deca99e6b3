//! Trust in figures: what hostile documents come to, who else agrees, what it costs.
//!
//! Decides which proofs count and what their goals are. Each runs as its own test, example or oracle, whose
//! last words are read here; nothing is counted twice.

use super::said::{numbers, test};
use super::{Asked, Row};
use crate::build::{self, output};
use crate::coverage::{self, Coverage};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What the page says of it.
pub(super) const ABOUT: &str = "What `contract/trust` refuses, by its tests; what python-tuf and model_signing say of the same documents; what it costs. \
Every bit of every golden document is flipped once; the other damage is structural (cuts, repeats, values moved, exchanged, removed, of other \
types, pieces of other documents). Verifying is an envelope with two signatures and its manifest, the best of five rounds. The size is that of a \
stripped program that verifies a root, a bundle and an assignment, less an empty one, of this machine's architecture: the goal is for aarch64.";

/// The program that measures.
pub(super) const EXAMPLE: (&str, &str) = ("petrel-trust", "verify");
/// Documents that are damaged.
const TAMPERED: u64 = 1_000_000;

pub(super) fn run(Asked { folder, .. }: Asked) -> anyhow::Result<Vec<Row>> {
    let mut rows = tampered()?;
    rows.extend(catalogue()?);
    rows.extend(oracles()?);
    rows.push(audit()?);
    let Coverage { percent, covered, lines, .. } = coverage::measure()?;
    rows.push(
        Row::new("lines of the crate that its tests run", percent, "%")
            .at_least(coverage::GOAL)
            .beside(&format!("{covered} of {lines}")),
    );
    rows.extend(costs(folder)?);
    Ok(rows)
}

fn tampered() -> anyhow::Result<Vec<Row>> {
    let count = TAMPERED.to_string();
    let said = test(&["--package", "petrel-trust", "--test", "tampered", "--release"], &[("PETREL_TAMPERED", &count)])?;
    let [bits, documents, 0.0] = numbers(&said, "bits flipped in")?[..] else {
        anyhow::bail!("a flipped bit was believed")
    };
    let [damaged, same, 0.0, 0.0] = numbers(&said, "documents damaged")?[..] else {
        anyhow::bail!("damage was believed")
    };
    Ok(vec![
        Row::new("bits flipped, each alone", bits, "bits").beside(&format!("{documents} golden documents")),
        Row::new("documents damaged otherwise", damaged, "")
            .at_least(TAMPERED as f64)
            .beside(&format!("{same} of them read as the very same document")),
        Row::new("believed as another document", 0.0, "").at_most(0.0),
        Row::new("panics", 0.0, "").at_most(0.0),
    ])
}

fn catalogue() -> anyhow::Result<Vec<Row>> {
    let said = test(&["--package", "petrel-trust", "--test", "refusals"], &[("PETREL_FUZZED", "1")])?;
    let told = numbers(&said, "refusal catalogue:")?;
    let [rows, _, here, cases, elsewhere] = told[..] else { anyhow::bail!("the catalogue told {told:?}") };
    let owned = said.lines().filter(|line| line.trim_start().starts_with("owned by"));
    let owned: usize = owned.map(|line| line.split_whitespace().filter(|word| row_name(word)).count()).sum();
    let codes = numbers(&said, "codes raised of")?;
    ensure!(codes.len() == 3, "the codes were told as {codes:?}");
    Ok(vec![
        Row::new("rows of the refusal catalogue that run", rows, "of 80")
            .beside(&format!("{here} here in {cases} cases, {elsewhere} in other rooms")),
        Row::new("rows that other work owns", owned as f64, "of 80"),
        Row::new("codes raised", codes[0], "")
            .at_least(codes[1])
            .beside(&format!("{} that the crate names, of {}", codes[1], codes[2])),
    ])
}

fn row_name(word: &str) -> bool {
    word.len() == 3 && word.starts_with('T') && word[1..].bytes().all(|b| b.is_ascii_digit())
}

fn oracles() -> anyhow::Result<Vec<Row>> {
    let ask = |name: &str| {
        eprintln!("oracle {name}");
        output(Command::new(std::env::current_exe()?).args(["oracles", name]))
    };
    let [chains, offered, taken, _, different] = numbers(&ask("tuf")?, "different verdicts")?[..] else {
        anyhow::bail!("python-tuf's figures are others")
    };
    let oms = numbers(&ask("oms")?, "differences")?;
    let [ours, packed, theirs, differences] = oms[..] else { anyhow::bail!("the tool's figures are others: {oms:?}") };
    Ok(vec![
        Row::new("random chains of roots beside python-tuf", chains, "")
            .at_least(500.0)
            .beside(&format!("{offered} roots offered, {taken} taken")),
        Row::new("chains judged otherwise", different, "").at_most(0.0),
        Row::new("bundles of ours beside model_signing", ours + packed, "")
            .at_least(100.0)
            .beside("each accepted by both, and refused by both after one change"),
        Row::new("folders that model_signing signed", theirs, "").at_least(100.0).beside("each accepted by us"),
        Row::new("differences", differences, "").at_most(0.0),
    ])
}

fn audit() -> anyhow::Result<Row> {
    let said = test(&["--package", "bridge-core", "--lib", "audit"], &[("PETREL_FUZZED", "1")])?;
    let told = numbers(&said, "each named, 0 missed")?;
    ensure!(told.len() == 6 && told[5] == 0.0, "the audit log told {told:?}");
    let [edited, removed, moved, repeated, cut] = [0, 1, 2, 3, 4].map(|at| told[at]);
    let kinds =
        format!("{edited} edited, {removed} removed, {moved} moved, {repeated} repeated, {cut} cut off; 0 missed");
    Ok(Row::new("audit lines tampered with, each named", told.iter().sum(), "").beside(&kinds))
}

fn costs(folder: &Path) -> anyhow::Result<Vec<Row>> {
    let measured: Value = serde_json::from_str(&output(&mut Command::new(folder.join("examples/verify")))?)?;
    let number = |name: &str| measured[name].as_f64().with_context(|| format!("no {name} was measured"));
    let size = |name: &str| -> anyhow::Result<f64> {
        build::example("petrel-trust", name)?;
        Ok(std::fs::metadata(folder.join("examples").join(name))?.len() as f64 / 1024.0)
    };
    let (smallest, nothing) = (size("smallest")?, size("nothing")?);
    Ok(vec![
        Row::new("verifying a bundle's envelope and manifest", number("verify_ms")?, "ms").at_most(20.0),
        Row::new("hashing", number("hash_mb_s")?, "MB/s").at_least(150.0).beside("SHA-256 of 16 MiB"),
        Row::new("the crate in a stripped program", smallest - nothing, "KiB")
            .at_most(200.0)
            .beside(&format!("{smallest:.0} KiB, an empty one {nothing:.0} KiB, {}", std::env::consts::ARCH)),
    ])
}
