//! `cargo xtask size`: what is in the agent's program, by section and by crate, and whether a board's budget is kept.
//!
//! Decides whom a function is of: the first crate in its name that is not Rust's own, since what is made of a library's
//! generic function for a crate is there because of that crate.

use crate::build::output;
use crate::cross::{Built, Wanted};
use anyhow::ensure;
use std::collections::BTreeMap;
use std::fs;

/// What a board may spend is said in these.
const MB: f64 = 1e6;
/// The rest is summed up.
const SHOWN: usize = 25;
/// Rust's own.
const OWN: [&str; 4] = ["alloc", "core", "std", "compiler_builtins"];

/// A program's size.
#[derive(Debug)]
pub(crate) struct Size {
    /// Bytes of the file, as it is shipped.
    pub(crate) file: u64,
    /// Bytes by section, the largest first.
    pub(crate) sections: Vec<(String, u64)>,
    /// Bytes by crate, the largest first.
    pub(crate) crates: Vec<(String, u64)>,
}

/// `cargo xtask size [--target T] [--profile BOARD] [--quick] [--json]`
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let (json, args): (Vec<String>, Vec<String>) = args.iter().cloned().partition(|arg| arg == "--json");
    let wanted = Wanted::asked(&args)?;
    let size = Size::of(&wanted.build()?)?;
    match json.is_empty() {
        true => println!("{size}"),
        false => println!("{}", size.json(&wanted.name)),
    }
    // What is quickly built is not what is shipped.
    let budget = wanted.profile.as_ref().filter(|_| !wanted.quick).map(|profile| profile.build.budget_mb);
    if let Some(budget) = budget {
        let has = size.file as f64 / MB;
        ensure!(
            has <= budget as f64,
            "the program of {} has {has:.1} MB, and its profile allows {budget}: leave something out, or allow more in firmware-profiles/",
            wanted.name
        );
    }
    Ok(())
}

impl Size {
    /// Looks into a program.
    pub(crate) fn of(built: &Built) -> anyhow::Result<Self> {
        let file = fs::metadata(&built.program)?.len();
        let listed = output(built.tools.command("size").arg("-A").arg(&built.program))?;
        let sections = listed.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, bytes) = (words.next()?, words.next()?.parse().ok()?);
            name.starts_with('.').then(|| (name.to_owned(), bytes))
        });
        let named =
            output(built.tools.command("nm").args(["--demangle", "--print-size", "--radix=d"]).arg(&built.named))?;
        let mut crates: BTreeMap<String, u64> = BTreeMap::new();
        for line in named.lines() {
            let mut words = line.splitn(4, ' ');
            let (Some(_), Some(Ok(bytes)), Some(kind)) =
                (words.next(), words.next().map(str::parse::<u64>), words.next())
            else {
                continue;
            };
            if !matches!(kind, "b" | "B" | "d" | "D") {
                *crates.entry(owner(words.next().unwrap_or_default())).or_default() += bytes;
            }
        }
        ensure!(crates.len() > 10, "{} has no names of what is in it", built.named.display());
        let largest_first = |mut all: Vec<(String, u64)>| {
            all.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
            all
        };
        Ok(Self {
            file,
            sections: largest_first(sections.collect()),
            crates: largest_first(crates.into_iter().collect()),
        })
    }

    fn json(&self, name: &str) -> serde_json::Value {
        let table = |all: &[(String, u64)]| -> serde_json::Map<String, serde_json::Value> {
            all.iter().map(|(name, bytes)| (name.clone(), (*bytes).into())).collect()
        };
        serde_json::json!({ "name": name, "bytes": self.file, "sections": table(&self.sections), "crates": table(&self.crates) })
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rest = |all: &[(String, u64)]| all.iter().skip(SHOWN).map(|(_, bytes)| bytes).sum::<u64>();
        for (head, all) in [("SECTION", &self.sections), ("CRATE", &self.crates)] {
            writeln!(f, "{head:30} {:>10}", "KB")?;
            for (name, bytes) in all.iter().take(SHOWN) {
                writeln!(f, "{name:30} {:>10.0}", *bytes as f64 / 1e3)?;
            }
            writeln!(f, "{:30} {:>10.0}\n", "the rest", rest(all) as f64 / 1e3)?;
        }
        write!(f, "{:.2} MB as it is shipped", self.file as f64 / MB)
    }
}

/// The crate that a function is there for.
fn owner(name: &str) -> String {
    let mut first = None;
    // Words that stand before `::` and behind none.
    for (at, _) in name.match_indices("::") {
        let head = &name[..at];
        let start = head.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |before| before + 1);
        let word = &head[start..];
        if word.is_empty() || head[..start].ends_with("::") || !word.starts_with(|c: char| c.is_ascii_lowercase()) {
            continue;
        }
        if !OWN.contains(&word) {
            return word.to_owned();
        }
        first.get_or_insert(word);
    }
    match first {
        Some(_) => "std".to_owned(),
        None => "C and assembly".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn a_function_is_of_the_crate_that_it_is_made_for() {
        for (name, expected) in [
            ("engine_core::ops::cnn::conv::Conv::eval", "engine_core"),
            ("<engine_hir::ops::Expand as core::fmt::Debug>::fmt", "engine_hir"),
            ("core::ptr::drop_in_place<alloc::vec::Vec<tokenizers::Token>>", "tokenizers"),
            ("<alloc::vec::Vec<u8> as core::fmt::Debug>::fmt", "std"),
            ("<serde::de::Visitor as petrel_trust::X>::y", "serde"),
            ("ring_core_0_17_14__bn_mul_mont", "C and assembly"),
            ("<T as core::convert::Into<U>>::into", "std"),
        ] {
            assert_eq!(owner(name), expected, "{name}");
        }
    }
}
