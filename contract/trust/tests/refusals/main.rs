//! The refusal catalogue, as far as this crate decides it: every hostile document has its code.
//!
//! Each room below makes one kind of document hostile in every way that the catalogue (and we) could
//! think of. What needs a ledger, a clock, an engine or a disk is proved where those live.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bans are on the room: its tests read golden files and the clock"
)]

mod bundles;
mod chain;
mod checkpoints;
mod clocks;
mod commands;
mod content;
mod devices;
mod elsewhere;
mod judged;
mod keyring;
mod models;
mod roots;
mod signatures;
#[path = "../signer/mod.rs"]
mod signer;

use petrel_trust::{Code, Refusal};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

/// One hostile document and what became of it.
struct Case {
    /// The row of the catalogue, or a word for what no row names.
    row: &'static str,
    /// How it is hostile.
    how: String,
    /// `None` where the row says that it is taken.
    expect: Option<Code>,
    got: Result<(), Refusal>,
}

fn case<T>(row: &'static str, how: impl Into<String>, expect: Code, got: Result<T, Refusal>) -> Case {
    Case { row, how: how.into(), expect: Some(expect), got: got.map(drop) }
}

/// What a row says is taken, and is.
fn taken<T>(row: &'static str, how: impl Into<String>, got: Result<T, Refusal>) -> Case {
    Case { row, how: how.into(), expect: None, got: got.map(drop) }
}

static SUITE: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let mut cases = signatures::cases();
    cases.extend(roots::cases());
    cases.extend(bundles::cases());
    cases.extend(content::cases());
    cases.extend(devices::cases());
    cases.extend(chain::cases());
    cases.extend(keyring::cases());
    cases.extend(judged::cases());
    cases.extend(clocks::cases());
    cases.extend(models::cases());
    cases.extend(checkpoints::cases());
    cases.extend(commands::cases());
    cases
});

#[test]
fn every_hostile_document_is_refused_with_its_code() {
    let cases = &*SUITE;
    let mut wrong = Vec::new();
    for Case { row, how, expect, got } in cases {
        match got {
            Err(refusal) if Some(refusal.code) == *expect => {
                if refusal.detail.chars().count() > 300 {
                    wrong.push(format!("{row} {how}: words without end"));
                }
                if refusal.detail.contains(char::is_control) {
                    wrong.push(format!("{row} {how}: words that a terminal obeys"));
                }
            }
            Err(refusal) => wrong.push(format!("{row} {how}: expected {expect:?}, got {refusal}")),
            Ok(()) if expect.is_none() => {}
            Ok(()) => wrong.push(format!("{row} {how}: expected {expect:?}, was BELIEVED")),
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let ran: BTreeSet<&str> = cases.iter().map(|c| c.row).filter(|row| row.starts_with('T')).collect();
    elsewhere::tell(&ran, cases.len());
}

/// The codes that the source of this crate names, so that a new one without a case fails here.
fn codes_of_the_source() -> BTreeSet<Code> {
    let mut named = BTreeSet::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for piece in text.split("Code::").skip(1) {
            let name = piece.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            named.extend(Code::ALL.iter().filter(|code| format!("{code:?}") == name));
        }
    }
    named
}

#[test]
fn every_code_of_this_crate_is_raised() {
    let raised: BTreeSet<Code> = SUITE.iter().filter_map(|c| c.got.as_ref().err()).map(|r| r.code).collect();
    let named = codes_of_the_source();
    println!("{} codes raised of {} that the crate names, {} exist", raised.len(), named.len(), Code::ALL.len());
    assert!(named.len() >= 40, "the source was not understood");
    assert_eq!(raised, named);
}
