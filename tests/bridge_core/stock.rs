//! Which releases stay in land's library, and which may go.

use super::delivery::holds;
use super::{Bench, fleet};
use bridge_core::Stay;

fn stays(bench: &Bench) -> Vec<(u64, Option<Stay>)> {
    let mut all: Vec<_> =
        bench.bridge.stock().into_iter().map(|(release, stay)| (bench.release(release.bundle), stay)).collect();
    all.sort_by_key(|(release, _)| *release);
    all
}

fn check(bench: &mut Bench, line: &str, expected: &str) {
    assert_eq!(bench.happen(line).join(", "), expected, "{line}");
}

#[test]
fn only_what_nothing_needs_may_go() {
    let mut bench = fleet(&[]);
    let newest = Some(Stay::Newest);
    assert_eq!(stays(&bench), [(1, None), (2, newest), (3, newest)]);
    check(&mut bench, "start 1 0 600 only", "publish 1, a 2: install 1, started 1");
    assert_eq!(stays(&bench)[0], (1, Some(Stay::Rolling(1))));
    check(&mut bench, "gc", "forgotten 0");
    check(&mut bench, "verdict a 1 1 confirmed", "clear 1");
    assert_eq!(stays(&bench)[0], (1, Some(Stay::Wanted(1))));
    check(&mut bench, "start 2 0 600 only", "publish 2, a 3: install 2, started 2");
    check(&mut bench, "verdict a 2 2 confirmed", "clear 2");
    // What it ran before is what it goes back to, as long as the later verdict may come.
    assert_eq!(stays(&bench)[0], (1, Some(Stay::Fallback(1))));
    check(&mut bench, "start 3 0 600 only", "publish 3, a 4: install 3, started 3");
    check(&mut bench, "verdict a 3 3 confirmed", "clear 3");
    assert_eq!(stays(&bench), [(1, None), (2, Some(Stay::Fallback(1))), (3, Some(Stay::Wanted(1)))]);
    assert!(holds(&mut bench, "a", 1, Some(3), Some(1)).is_empty());
    assert_eq!(stays(&bench)[0], (1, Some(Stay::Held(1))), "it says that it keeps it");
    assert!(holds(&mut bench, "a", 2, Some(3), Some(2)).is_empty());
    check(&mut bench, "gc", "remove 1, forgotten 1");
    check(&mut bench, "gc", "forgotten 0");
    check(&mut bench, "start 1 0 600", "not found");
    bench.happen("restart");
    assert_eq!(stays(&bench).len(), 2);
    check(&mut bench, "push 1", "");
    assert_eq!(stays(&bench)[0], (1, None), "it can come back");
}

#[test]
fn a_device_that_left_keeps_nothing() {
    let mut bench = fleet(&[
        ("start 1 0 600 only", "publish 1, a 2: install 1, started 1"),
        ("verdict a 1 1 confirmed", "clear 1"),
    ]);
    assert_eq!(stays(&bench)[0], (1, Some(Stay::Wanted(1))));
    bench.happen("revoke a");
    check(&mut bench, "gc", "remove 1, forgotten 1");
}

/// The last one stays for its number, and what a device should run from one keeps it.
#[test]
fn of_rollouts_only_old_ones_go_that_nobody_needs() {
    let mut bench = fleet(&[
        ("start 1 0 600 only", "publish 1, a 2: install 1, started 1"),
        ("verdict a 1 1 confirmed", "clear 1"),
        ("start 2 0 600 only", "publish 2, a 3: install 2, started 2"),
        ("verdict a 2 2 confirmed", "clear 2"),
    ]);
    let left = |bench: &Bench| bench.bridge.rollouts().keys().copied().collect::<Vec<_>>();
    check(&mut bench, "wait 100", "");
    check(&mut bench, "age 1 200", "conflict");
    assert_eq!(bench.bridge.old_rollouts(bench.unix - 50_000), [1], "the device runs what the other one brought");
    check(&mut bench, "age 1 50", "");
    check(&mut bench, "age 1 50", "conflict");
    check(&mut bench, "age 2 50", "conflict");
    check(&mut bench, "start 3 0 600 only", "publish 3, a 4: install 3, started 3");
    check(&mut bench, "age 2 50", "");
    check(&mut bench, "verdict a 3 3 confirmed", "clear 3");
    bench.happen("wait 100");
    bench.happen("restart");
    bench.happen("retire a");
    check(&mut bench, "age 3 50", "conflict");
    assert_eq!(left(&bench), [3], "the last stays for its number");
}
