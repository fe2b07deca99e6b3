//! Whom a wave reaches next when only so many devices may be on their way.

use super::*;

#[test]
fn no_more_devices_than_asked_for_are_on_their_way() {
    let bench = fleet(&[
        ("start 1 0 600 by:0", "invalid"),
        ("here a", ""),
        ("here c", ""),
        ("start 1 0 600 by:1", "publish 1, a 2: install 1, started 1"),
        // Another waits for a verdict, or for a device that goes away; who comes back counts again.
        ("here b", ""),
        ("verdict a 1 1 confirmed", "c 2: install 1"),
        ("gone c", "b 2: install 1"),
        ("here c", ""),
        ("gone b", ""),
        ("verdict c 1 1 confirmed", ""),
        ("verdict b 1 1 confirmed", "clear 1"),
    ]);
    assert_eq!(bench.phase(1), "Completed");
    // One that is away is assigned nothing before it comes, and is no reason to stop: it gets the release when it comes.
    let away = [
        ("here a", ""),
        ("start 1 0 600 by:2", "publish 1, a 2: install 1, started 1"),
        ("verdict a 1 1 confirmed", ""),
        ("here c", "c 2: install 1"),
        ("verdict c 1 1 confirmed", ""),
    ];
    assert_eq!(fleet(&away).phase(1), "Rolling");
    let late = [&away[..], &[("wait 600", "clear 1")]].concat();
    assert_eq!(fleet(&late).phase(1), "Completed");
}
