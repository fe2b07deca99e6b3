//! What the evidence says: ten thousand modelled devices, and a handful.

use super::*;
use bridge_core::judge::Verdict as Said;
use bridge_core::{Figures, Finding, Judgement, Measured};
use world::judged::{Change, Fleet, Judged};

/// Runs of each cell; `cargo xtask bench rollout` has more.
const RUNS: u64 = 10;

#[test]
fn a_release_that_misbehaves_is_stopped_at_the_canary_and_a_good_one_is_not() {
    let fleet = Fleet::new(10_000);
    for (change, name) in Change::ALL {
        let half = |odd: u64| {
            (0..RUNS).filter(|seed| seed % 2 == odd).map(|seed| fleet.judge(seed, change)).collect::<Vec<Judged>>()
        };
        let seen = std::thread::scope(|scope| {
            let other = scope.spawn(|| half(1));
            [half(0), other.join().unwrap()].concat()
        });
        let worst = seen.iter().map(|run| run.hit).max().unwrap();
        println!("{name}: at most {worst} of 10,000 hit; {}", seen[0].reason);
        if change == Change::Nothing {
            assert!(seen.iter().all(|run| !run.stopped && run.completed && run.hit == 10_000), "{seen:?}");
        } else {
            assert!(worst <= 150 && seen.iter().all(|run| run.stopped && run.left == 0), "{name}: {seen:?}");
        }
    }
}

/// One canary of two devices, both measured before and after.
struct Small(Bench);

impl Small {
    fn new() -> Self {
        let mut bench = fleet(&[("here a", ""), ("here b", "")]);
        bench.happen("start 1 0 600 100%");
        ["a", "b", "c"].iter().for_each(|id| drop(bench.happen(&format!("verdict {id} 1 1 confirmed"))));
        Self(bench)
    }

    fn measured(&mut self, id: &str, release: u64, figures: Figures) {
        let measured = Measured { device: device(id), stream: "digits".parse().unwrap(), release, figures };
        self.0.step(Event::Measured(vec![measured])).answer.unwrap();
    }

    fn start(&mut self, policy: Policy) -> u64 {
        let to = Targets::Devices([device("a"), device("b")].into());
        self.0.step(Event::RolloutRequested(Box::new(request("2", to, policy)))).answer.unwrap();
        *self.0.bridge.rollouts().keys().next_back().unwrap()
    }

    fn judgement(&self, rollout: u64) -> Judgement {
        self.0.bridge.rollouts()[&rollout].judgement.clone().unwrap()
    }
}

fn answered(answers: u64, errors: u64, classes: &[(&str, u64)]) -> Figures {
    let classes = classes.iter().map(|(class, n)| (class.to_string(), *n)).collect();
    Figures { answers, errors, took_us: answers * 100, memory_kb: 0, classes }
}

fn canary() -> Policy {
    let wave = |size: &str| Wave { size: size.parse().unwrap(), soak: "1h".parse().unwrap(), approval: false };
    Policy { waves: vec![wave("1"), wave("100%")], trial: trial(10, 0, 60), ..Policy::default() }
}

fn finding<'a>(judgement: &'a Judgement, gate: &str) -> &'a Finding {
    judgement.findings.iter().find(|finding| finding.gate == gate).unwrap()
}

#[test]
fn one_canary_is_held_against_itself_before_and_the_judgement_is_weak() {
    let mut small = Small::new();
    for id in ["a", "b"] {
        small.measured(id, 1, answered(900, 9, &[("cat", 600), ("dog", 300)]));
    }
    let rollout = small.start(canary());
    small.0.happen("verdict a 2 2 confirmed");
    // As before: nothing to say.
    small.measured("a", 2, answered(300, 3, &[("cat", 200), ("dog", 100)]));
    let judgement = small.judgement(rollout);
    assert!(judgement.weak && judgement.verdict == Said::Pass, "{judgement:?}");
    // It answers, and answers something else.
    small.measured("a", 2, answered(300, 3, &[("cat", 50), ("dog", 250)]));
    let judgement = small.judgement(rollout);
    let drift = finding(&judgement, "drift");
    assert_eq!((judgement.verdict, drift.verdict), (Said::Fail, Said::Fail), "{judgement:?}");
    assert!(drift.why.ends_with("before it"), "{}", drift.why);
    assert_eq!(small.0.phase(rollout), "Reverting");
    assert_eq!(small.0.bridge.rollouts()[&rollout].hit(), 1);
}

#[test]
fn errors_memory_and_the_shadow_stop_a_release_each_in_numbers() {
    // Errors of one canary beside its own.
    let mut small = Small::new();
    small.measured("a", 1, answered(990, 10, &[]));
    let rollout = small.start(canary());
    small.measured("a", 2, answered(450, 50, &[]));
    let judgement = small.judgement(rollout);
    assert_eq!(finding(&judgement, "errors").why, "10.0 % with it, 1.0 % before it");
    assert_eq!(small.0.phase(rollout), "Reverting");
    // The shadow: sixty of five hundred answers are others.
    let mut small = Small::new();
    let rollout = small.start(canary());
    let shadow = Some(protocol::ShadowReport { compared: 500, disagreed: 60 });
    let Event::VerdictReceived(verdict) = small.0.verdict(&["a", "2", "2", "confirmed"]) else { panic!("a verdict") };
    small.0.step(Event::VerdictReceived(Verdict { shadow, ..verdict })).answer.unwrap();
    let judgement = small.judgement(rollout);
    assert_eq!(finding(&judgement, "disagreement").why, "60 of 500 answers in the shadow were others, at most 5.0 %");
    assert_eq!(small.0.phase(rollout), "Reverting");
    // Without a word of a manifest's budget nothing is said of memory, and without answers nothing of anything.
    let mut small = Small::new();
    let rollout = small.start(canary());
    small.measured("a", 2, Figures { memory_kb: 1 << 30, ..Figures::default() });
    let gates: Vec<String> = small.judgement(rollout).findings.into_iter().map(|finding| finding.gate).collect();
    assert_eq!(gates, ["max_failed", "silence", "install_failed", "errors", "latency"]);
}

#[test]
fn what_a_device_did_with_a_release_that_is_not_the_rollouts_is_no_evidence_for_it() {
    let mut small = Small::new();
    let rollout = small.start(canary());
    small.measured("a", 1, answered(10, 10, &[]));
    small.measured("a", 3, answered(10, 10, &[]));
    small.measured("b", 2, answered(10, 10, &[]));
    small.measured("b", 1, answered(10, 10, &[]));
    small.measured("x", 2, answered(10, 10, &[]));
    let members = &small.0.bridge.rollouts()[&rollout].members;
    let [a, b] = ["a", "b"].map(|id| &members[&device(id)]);
    assert_eq!((a.new.answers, a.old.answers, b.new.answers, b.old.answers), (0, 10, 0, 10));
}

#[test]
fn whatever_a_device_says_of_itself_breaks_nothing() {
    let mut small = Small::new();
    let rollout = small.start(canary());
    let most = u64::MAX;
    for (id, release) in [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("a", 2), ("b", 1)] {
        let classes = [("x\u{1b}[2J".to_owned(), most), ("y".to_owned(), most)].into();
        small.measured(id, release, Figures { answers: most, errors: most, took_us: most, memory_kb: most, classes });
    }
    let shadow = Some(protocol::ShadowReport { compared: 1, disagreed: most });
    let Event::VerdictReceived(verdict) = small.0.verdict(&["a", "2", "2", "reverted"]) else { panic!("a verdict") };
    let detail = Some("\u{1b}[2J".repeat(1_000));
    small.0.step(Event::VerdictReceived(Verdict { shadow, detail, ..verdict })).answer.unwrap();
    let judgement = small.judgement(rollout);
    let why = &finding(&judgement, "max_failed").why;
    assert!(why.len() < 500 && !why.contains('\u{1b}'), "{why:?}");
    let again: Judgement = serde_json::from_str(&serde_json::to_string(&judgement).unwrap()).unwrap();
    assert_eq!(again, judgement);
}
