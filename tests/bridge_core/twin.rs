//! Two agents with one identity: told apart by what they say, and nobody else is taken for two.

use super::{Bench, device, fleet};

/// Lives hellos of device `a`, `[BOOT.]SEQ NONCE` or `wait SECONDS` each, and counts the alarms that were raised.
fn alarms(script: &[&str]) -> usize {
    let mut bench: Bench = fleet(&[]);
    let mut raised = 0;
    for line in script {
        bench.unix += 1_000;
        let before = bench.bridge.devices()[&device("a")].alarm.clone();
        match line.split_once(' ') {
            Some(("wait", _)) => drop(bench.happen(line)),
            Some((number, nonce)) => drop(bench.happen(&format!("hello a {number} a {nonce}"))),
            None => drop(bench.happen(line)),
        }
        let alarm = bench.bridge.devices()[&device("a")].alarm.clone();
        if alarm != before {
            assert!(alarm.unwrap().what.starts_with("two agents use this identity"));
            raised += 1;
        }
    }
    raised
}

#[test]
fn t64_two_agents_with_one_identity_are_noticed_once() {
    // A copy that was made when both were at the same boot: they count alike.
    let alike = ["8.1 x", "8.1 y", "8.2 x", "8.2 y", "8.3 x", "8.3 y", "8.4 x", "8.4 y", "8.5 x", "8.5 y"];
    assert_eq!(alarms(&alike), 1);
    // A copy of long ago, and one that was started more often since.
    let (older, newer) = (
        ["8.1 a", "3.1 b", "8.2 c", "3.2 d", "8.3 e", "3.3 f", "8.4 g", "3.4 h"],
        ["8.1 a", "9.1 b", "8.2 c", "9.2 d", "8.3 e", "9.3 f", "8.4 g", "9.4 h"],
    );
    assert_eq!(alarms(&older), 1);
    assert_eq!(alarms(&newer), 1);
    // Both start anew each time, as a supervisor would have it.
    assert_eq!(alarms(&["8.1 a", "8.1 b", "9.1 c", "9.1 d", "10.1 e", "10.1 f"]), 1);
    // It was over, and begins again.
    let again = [&older[..], &["wait 7200"], &["8.5 i", "3.5 j", "8.6 k", "3.6 l", "8.7 m", "3.7 n"]].concat();
    assert_eq!(alarms(&again), 2);
}

#[test]
fn a_device_alone_is_not_taken_for_two() {
    let honest: [&[&str]; 7] = [
        &["1.1 a", "1.2 b", "2.1 c", "3.1 d", "3.2 e"],
        // Its memory went back; it counts on from there, whatever land makes of it.
        &["7.1 a", "7.2 b", "3.1 c", "3.2 d", "3.3 e", "4.1 f", "4.2 g"],
        // The broker brings everything twice, and in another order.
        &["7.1 a", "7.1 a", "7.2 b", "7.1 a", "7.2 b", "7.3 c", "7.1 a", "7.3 c", "7.4 d", "7.2 b", "7.4 d"],
        // Twice a word that was lost comes late: no more than that.
        &["7.1 a", "7.3 c", "7.2 b", "7.4 d", "7.6 f", "7.5 e", "7.7 g"],
        // Every hour once, which is no struggle for a connection.
        &[
            "8.1 a",
            "3.1 b",
            "wait 3600",
            "8.2 c",
            "3.2 d",
            "wait 3600",
            "8.3 e",
            "3.3 f",
            "wait 3600",
            "8.4 g",
            "3.4 h",
        ],
        &["8.1 a", "restart", "8.1 a", "8.2 b", "restart", "8.2 b", "8.3 c", "restart", "8.3 c"],
        &[],
    ];
    for script in honest {
        assert_eq!(alarms(script), 0, "{script:?}");
    }
}
