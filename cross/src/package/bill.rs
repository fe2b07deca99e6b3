//! The bill of a program, as CycloneDX 1.6: every crate that is linked into it, by its version, its licence and its checksum.
//!
//! Decides the words. No time and no random number goes in: the same program has the same bill.

use crate::build::{cargo, output, workspace};
use crate::cross::{Built, Wanted};
use anyhow::Context;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

/// The bill as text.
pub(super) fn of(wanted: &Wanted, built: &Built) -> anyhow::Result<String> {
    let digest = output(Command::new("sha256sum").arg(&built.program))?;
    let digest = digest.split_whitespace().next().context("sha256sum says nothing")?.to_owned();
    let sums = checksums()?;
    let version = env!("CARGO_PKG_VERSION");
    let components: Vec<Value> = linked(wanted)?
        .into_iter()
        .map(|(name, version, licence)| {
            let purl = format!("pkg:cargo/{name}@{version}");
            let mut component = json!({ "type": "library", "bom-ref": purl, "name": name, "version": version });
            if !licence.is_empty() {
                component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
            }
            if let Some(sum) = sums.get(&(name, version)) {
                component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
                component["purl"] = purl.into();
            }
            component
        })
        .collect();
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": {
            "type": "application",
            "bom-ref": format!("petrel-agent@{version}"),
            "name": "petrel-agent",
            "version": version,
            "hashes": [{ "alg": "SHA-256", "content": digest }],
            "properties": [
                { "name": "petrel:target", "value": wanted.target.triple() },
                { "name": "petrel:features", "value": wanted.features().join(",") },
            ],
        } },
        "components": components,
    });
    Ok(format!("{bill:#}\n"))
}

/// Name, version and licence of every crate that is linked in; what only builds it is left out.
fn linked(wanted: &Wanted) -> anyhow::Result<BTreeSet<(String, String, String)>> {
    let mut tree = cargo();
    tree.args(["tree", "--locked", "--package", "agent", "--edges", "normal,no-proc-macro", "--prefix", "none"]);
    tree.args(["--target", wanted.target.triple(), "--format", "{p}|{l}"]);
    tree.args(["--no-default-features", "--features", &wanted.features().join(",")]);
    let told = output(&mut tree)?;
    let parts = |line: &str| {
        let (package, licence) = line.split_once('|')?;
        let mut words = package.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.trim_start_matches('v'));
        Some((name.to_owned(), version.to_owned(), licence.trim_end_matches(" (*)").trim().to_owned()))
    };
    Ok(told.lines().filter_map(parts).collect())
}

/// The checksums of `Cargo.lock`, by name and version.
fn checksums() -> anyhow::Result<BTreeMap<(String, String), String>> {
    let lock = fs::read_to_string(workspace().join("Cargo.lock"))?;
    let said = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
        Some(line.trim_matches('"').to_owned())
    };
    let packages = lock
        .split("[[package]]")
        .filter_map(|package| Some(((said(package, "name")?, said(package, "version")?), said(package, "checksum")?)));
    Ok(packages.collect())
}
