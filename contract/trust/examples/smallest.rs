//! The smallest program that believes: root, bundle, manifest and assignment from files. Its size is what the crate costs.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bans are on the room: its examples read files"
)]

use petrel_trust::*;
use std::process::ExitCode;

fn main() -> ExitCode {
    let files: Vec<Vec<u8>> = std::env::args().skip(1).map_while(|path| std::fs::read(path).ok()).collect();
    let [root, envelope, manifest, assignment] = files.as_slice() else { return ExitCode::from(2) };
    let believed = || {
        let root = verify_root("demo", root)?;
        let statement = verify_statement(&root, envelope)?;
        verify_manifest(&root, &statement, manifest)?;
        verify_assignment(&root, "rpi-1", assignment)
    };
    match believed() {
        Ok(_) => ExitCode::SUCCESS,
        Err(refusal) => ExitCode::from(refusal.code as u8 + 3),
    }
}
