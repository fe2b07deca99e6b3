//! The page `docs/trust.md` shows the codes and the rules as they are.
//!
//! `PETREL_BLESS=1 cargo test -p petrel-trust --test page` writes both tables anew.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bans are on the room: its tests read the page and the environment"
)]

use petrel_trust::{Code, Rule};
use std::collections::BTreeSet;
use std::path::PathBuf;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/trust.md")
}

/// The page's part between the marks of `name` is `table`.
fn shows(name: &str, table: &str) {
    let page = std::fs::read_to_string(path()).expect("docs/trust.md");
    let (open, close) = (format!("<!-- {name}: written by a test -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = page.split_once(&open).expect("the mark that opens the table");
    let (shown, after) = rest.split_once(&close).expect("the mark that closes the table");
    if std::env::var_os("PETREL_BLESS").is_some() {
        std::fs::write(path(), [before, &open, table, &close, after].concat()).expect("the page can be written");
    } else {
        assert_eq!(shown, table, "the table of {name} in docs/trust.md is not what the crate has");
    }
}

#[test]
fn the_page_shows_every_code_and_every_rule() {
    let row = |code: &Code| format!("| `{code}` | {} | {} |\n", code.meaning(), code.remedy());
    let rows: String = Code::ALL.iter().map(row).collect();
    shows("codes", &format!("| code | it means | what to do |\n|---|---|---|\n{rows}"));
    let rows: String = Rule::ALL.iter().map(|rule| format!("1. {rule}\n")).collect();
    shows("rules", &rows);
}

#[test]
fn every_code_says_what_it_means_and_what_to_do_in_one_sentence() {
    let mut texts = BTreeSet::new();
    for code in Code::ALL {
        for sentence in [code.meaning(), code.remedy()] {
            assert!(sentence.ends_with('.') && sentence.len() > 10, "{code}: `{sentence}`");
            assert!(!sentence.contains(". "), "{code}: `{sentence}` is more than one sentence");
        }
        assert!(texts.insert(code.as_str()) && code.as_str().starts_with("E_"), "{code} twice");
    }
    assert!(Code::ALL.is_sorted_by(|a, b| a.as_str() < b.as_str()), "the codes are sorted");
}
