//! The agent for ARM: what its program weighs, with everything and for the smallest board, what in it weighs, and how many
//! instructions an answer costs there.
//!
//! Decides what is worth a row, and the goals.

use super::{Asked, Row, boards, instructions};
use crate::cross::Wanted;
use crate::size::Size;

/// What the page says of it.
pub(super) const ABOUT: &str = "The agent's program for 64-bit ARM as `cargo xtask cross` builds it (cargo's profile `board`), stripped: with everything, and as `firmware-profiles/rpi-zero-2w.toml` \
asks for it, without pictures and text. By crate: the functions and tables that are there because of a crate, before the file is stripped; \
what is inlined counts for the crate it is inlined into. `cargo xtask size --target aarch64-unknown-linux-gnu` shows all of it.\n\n\
Instructions: of one answer of an example model, one row, one thread, counted by a plugin of qemu-user that is a Cortex-A53; those of ONNX Runtime's own wheel for ARM beside them, of the \
same version that gave the reference. It is called from Python, as it is used, and that is in its count; `pictures` has next to no model and shows how much that is. \
Below 1 is better. Time under qemu says nothing, and is not measured.\n\n\
Idle: proportional set size of the same agent, built for the machine that measures, connected by TLS and with no model, its file not in the cache before it starts, as after a boot; the middle of a minute, or with `--full` as AWS measures its Greengrass nucleus lite \
(`benchmark/REPORT.md` of aws-greengrass-lite, version 2.5.0): each 10 seconds of ten minutes, after five; three times. Of that one, nine daemons, it says 14.6 MB idle on x86-64, 14.6 on a Raspberry Pi 4 and \
12.3 on a Pi 3, 32 bits; with six components 14.8, 15.8 and 12.4.";

/// With everything, and the smallest; what each should weigh at most, MB.
const BOARDS: [(&str, f64); 2] = [("generic-aarch64", 16.0), ("rpi-zero-2w", 13.0)];
const MB: f64 = 1e6;
/// The largest crates of each.
const CRATES: usize = 12;

pub(super) fn run(asked: Asked) -> anyhow::Result<Vec<Row>> {
    let (mut rows, mut crates) = (Vec::new(), Vec::new());
    for (board, goal) in BOARDS {
        let size = Size::of(&Wanted::of(board, false)?.build()?)?;
        let text = size.sections.iter().find(|(name, _)| name == ".text").map_or(0, |(_, bytes)| *bytes);
        let beside = format!("{:.1} MB of it are code", text as f64 / MB);
        rows.push(
            Row::new(&format!("the program of {board}"), size.file as f64 / MB, "MB").at_most(goal).beside(&beside),
        );
        let of = |(name, bytes): &(String, u64)| Row::new(&format!("{board}: {name}"), *bytes as f64 / MB, "MB");
        crates.extend(size.crates.iter().take(CRATES).map(of));
    }
    rows.extend(crates);
    rows.push(boards::idle(asked, &boards::programs(asked.folder)?)?);
    rows.extend(instructions::rows()?);
    Ok(rows)
}
