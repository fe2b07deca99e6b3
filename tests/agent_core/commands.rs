//! What a device does when land asks for something now. Who may ask, and when it counts, are tables of `trust`.

use super::bench::*;
use agent_core::Effect;
use protocol::CommandOutcome;

#[test]
fn what_is_asked_is_done_and_answered() {
    let bench = then(
        RUNNING_1,
        &[
            (r#"command 1 {"what": "diagnostics"}"#, "diagnose 1"),
            (r#"command 2 {"what": "report"}"#, "measure, result 2 done"),
            (r#"command 3 {"what": "restart", "stream": "digits"}"#, "restart"),
            ("restarted", "result 3 done"),
            ("restarted", ""),
            (r#"command 4 {"what": "restart", "stream": "digits"}"#, "restart"),
            ("unstarted", "result 4 failed no memory"),
        ],
    );
    assert_eq!(bench.agent.refusals().count(), 0);
}

#[test]
fn a_report_that_is_asked_for_is_said_again() {
    let mut bench = check(RUNNING_1);
    let effects = bench.happen(r#"command 1 {"what": "report"}"#);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::PublishReport(_))), "{effects:?}");
    let result = effects.iter().find_map(|effect| match effect {
        Effect::DeliverResult(result) => Some(result.clone()),
        _ => None,
    });
    let result = result.unwrap();
    assert_eq!((result.outcome, result.device_id, result.nonce.len()), (CommandOutcome::Done, bench.device, 32));
}

#[test]
fn a_level_of_the_log_goes_back_by_itself() {
    then(
        RUNNING_1,
        &[
            (r#"command 1 {"what": "log-level", "level": "debug", "for_s": 60}"#, "log debug, result 1 done"),
            ("wait 59", ""),
            ("wait 1", "log as before"),
            ("wait 60", ""),
            (r#"command 2 {"what": "log-level", "level": "trace", "for_s": 60}"#, "log trace, result 2 done"),
            // A later one counts from when it came.
            ("wait 20", ""),
            (r#"command 3 {"what": "log-level", "level": "warn", "for_s": 60}"#, "log warn, result 3 done"),
            ("wait 59", ""),
            ("wait 1", "log as before"),
        ],
    );
}

#[test]
fn a_command_is_taken_once_and_in_its_time() {
    let report = r#"{"what": "report"}"#;
    let line = |words: &str| format!("command {words} {report}");
    let bench = then(
        RUNNING_1,
        &[
            (&line("7"), "measure, result 7 done"),
            // The broker may bring it twice.
            (&line("7"), ""),
            (&line("8 late"), "result 8 refused E_EXPIRED"),
            (&line("8"), ""),
            (&line("9 stale"), "result 9 refused E_REPLAY"),
            (&line("6"), ""),
            // A newer hello begins anew.
            ("disconnect", ""),
            ("connect", "await root 2, hello"),
            (&line("1"), "measure, result 1 done"),
        ],
    );
    let refusals: Vec<_> = bench.agent.refusals().map(|r| (r.code.as_str(), r.count)).collect();
    assert_eq!(refusals, [("E_EXPIRED", 1), ("E_REPLAY", 3)]);
}

#[test]
fn a_command_that_nobody_knows_or_that_cannot_be_done_is_refused() {
    let bench = then(
        RUNNING_1,
        &[
            (r#"command 1 {"what": "dance", "how": 3}"#, "result 1 refused E_REQUEST"),
            (r#"command 2 {"what": "restart", "stream": "vib-2"}"#, "result 2 refused E_REQUEST"),
            (r#"command 3 {"what": "restart", "stream": "No Name"}"#, "result 3 refused E_REQUEST"),
            (r#"command 4 {"what": "restart", "stream": "digits"}"#, "restart"),
            (r#"command 5 {"what": "restart", "stream": "digits"}"#, "result 5 refused E_REQUEST"),
            ("restarted", "result 4 done"),
        ],
    );
    assert_eq!(bench.agent.refusals().count(), 0, "an honest land asked");
}

#[test]
fn commands_that_come_too_fast_are_refused_and_nothing_is_written() {
    let mut bench = check(RUNNING_1);
    let before = bench.saved.clone();
    let mut said = Vec::new();
    for seq in 1..=20 {
        let effects = bench.happen(&format!(r#"command {seq} {{"what": "diagnostics"}}"#));
        said.extend(effects.iter().filter_map(|effect| bench.say(effect)));
    }
    let done = (1..=10).map(|seq| format!("diagnose {seq}"));
    let refused = (11..=20).map(|seq| format!("result {seq} refused E_RATE"));
    assert_eq!(said, done.chain(refused).collect::<Vec<_>>());
    assert_eq!(bench.saved, before);
    // A new process does not count against the model, and a start forgets what was asked.
    live(
        bench,
        &[
            ("wait 60", ""),
            (r#"command 21 {"what": "restart", "stream": "digits"}"#, "restart"),
            ("restart", "serve 1"),
            ("restarted", ""),
        ],
    );
}
