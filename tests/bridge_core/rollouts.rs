//! What people ask of rollouts, and how they go on by themselves: budgets, pace, windows, boxes, newcomers.

use super::*;
use bridge_core::policy::{Action, OnBreach, Pace, RateIncrease, Retry, Window};
use bridge_core::{Figures, Measured, Phase, Place, Turn, WaveSize, Wish};

/// A policy in TOML, as people write it.
fn policy(text: &str) -> Policy {
    let policy: Policy = toml::from_str(text).unwrap();
    policy.check().unwrap();
    policy
}

impl Bench {
    fn turned(&mut self, rollout: u64, by: &str, wish: Wish) -> String {
        let committed = self.step(Event::RolloutTurned { rollout, by: by.into(), since: 0, wish });
        match committed.answer {
            Ok(_) => committed.effects.iter().filter_map(|e| self.say(e)).collect::<Vec<_>>().join(", "),
            Err(rejection) => rejection.to_string(),
        }
    }

    fn ask(&mut self, release: &str, to: &str, policy: Policy) -> String {
        let to = if to == "all" { Targets::All } else { Targets::Where(to.parse().unwrap()) };
        let committed = self.step(Event::RolloutRequested(Box::new(request(release, to, policy))));
        let said = committed.effects.iter().filter_map(|e| self.say(e)).collect::<Vec<_>>().join(", ");
        committed.answer.map_or_else(|rejection| rejection.to_string(), |_| said)
    }

    fn says(&mut self, script: &[(&str, &str)]) {
        for (at, (event, expected)) in script.iter().enumerate() {
            assert_eq!(self.happen(event).join(", "), *expected, "line {at}: {event}");
        }
    }

    fn label(&mut self, id: &str, key: &str, value: &str) {
        let labels = [(key.to_owned(), Some(value.to_owned()))].into();
        self.step(Event::DeviceLabelled { device: device(id), labels }).answer.unwrap();
    }

    fn reason(&self, rollout: u64) -> String {
        match &self.bridge.rollouts()[&rollout].phase {
            Phase::Paused { reason, .. } | Phase::Reverting { reason, .. } | Phase::Stopped { reason, .. } => {
                reason.clone()
            }
            phase => panic!("{phase:?} has no reason"),
        }
    }

    /// A device's row of telemetry.
    fn measured(&mut self, id: &str, release: u64, figures: Figures) {
        let measured = Measured { device: device(id), stream: "digits".parse().unwrap(), release, figures };
        self.step(Event::Measured(vec![measured])).answer.unwrap();
    }
}

/// `a`, `b` and `c`, which are there; every release is pushed.
fn there() -> Bench {
    fleet(&[("here a", ""), ("here b", ""), ("here c", "")])
}

#[test]
fn a_draft_waits_for_its_beginning_and_what_needs_approval_for_somebody_else() {
    let mut bench = there();
    let to = Targets::All;
    let draft = RolloutRequest {
        draft: true,
        ..request(
            "1",
            to,
            policy("approval = true\n[[wave]]\nsize = \"1\"\n[[wave]]\nsize = \"100%\"\napproval = true\n"),
        )
    };
    assert_eq!(bench.step(Event::RolloutRequested(Box::new(draft))).effects.len(), 0);
    assert_eq!(bench.phase(1), "Draft");
    assert_eq!(bench.turned(1, "bert", Wish::Approve), "rollout 1 is draft: it cannot be asked to approve");
    assert_eq!(bench.turned(1, "anna", Wish::Begin), "publish 1");
    assert_eq!(bench.phase(1), "Approval");
    assert_eq!(
        bench.turned(1, "anna", Wish::Approve),
        "rollout 1 was started by `anna`: somebody else must approve it"
    );
    assert_eq!(bench.turned(1, "anna", Wish::Begin), "rollout 1 is approval: it cannot be asked to begin");
    assert_eq!(bench.turned(1, "bert", Wish::Approve), "a 2: install 1");
    bench.says(&[("verdict a 1 1 confirmed", "")]);
    assert_eq!(bench.phase(1), "Approval");
    assert_eq!(bench.turned(1, "cleo", Wish::Approve), "b 2: install 1, c 2: install 1");
    let approved: Vec<_> = bench.bridge.rollouts()[&1].approved.iter().map(|(w, who)| (*w, who.as_str())).collect();
    assert_eq!(approved, [(0, "bert"), (1, "cleo")]);
}

#[test]
fn a_person_pauses_resumes_aborts_and_takes_back() {
    let mut bench = there();
    assert_eq!(bench.ask("1", "all", policy("[[wave]]\nsize = \"1\"")), "publish 1, a 2: install 1");
    assert_eq!(bench.turned(1, "bert", Wish::Pause), "");
    assert_eq!(bench.reason(1), "paused by bert");
    bench.says(&[("verdict a 1 1 confirmed", "")]);
    assert_eq!(bench.turned(1, "bert", Wish::Pause), "rollout 1 is paused: it cannot be asked to pause");
    assert_eq!(bench.turned(1, "bert", Wish::Resume), "b 2: install 1, c 2: install 1");
    bench.says(&[("verdict b 1 1 confirmed", ""), ("verdict c 1 1 confirmed", "clear 1")]);
    assert_eq!(bench.phase(1), "Completed");
    // Another, which is aborted; those who have it go back, and whoever keeps it keeps it.
    assert_eq!(bench.ask("2", "all", policy("[[wave]]\nsize = \"2\"")), "publish 2, a 3: install 2, c 3: install 2");
    assert_eq!(bench.turned(2, "anna", Wish::Abort { keep: false }), "clear 2, a 4: rollback 1, c 4: rollback 1");
    assert_eq!(bench.phase(2), "Reverting");
    assert_eq!(bench.reason(2), "aborted by anna");
    bench.says(&[("verdict a 2 1 confirmed", ""), ("verdict c 2 1 confirmed", "")]);
    assert_eq!(bench.phase(2), "Stopped");
    assert_eq!(bench.ask("3", "all", policy("[[wave]]\nsize = \"1\"")), "publish 3, a 5: install 3");
    assert_eq!(bench.turned(3, "anna", Wish::Abort { keep: true }), "clear 3");
    assert_eq!(bench.phase(3), "Stopped");
    // What ended is undone, unless something later is under way.
    assert_eq!(bench.ask("2", "id = b", policy("")), "publish 2, b 3: install 2");
    assert_eq!(bench.turned(3, "anna", Wish::Undo), "rollout 4 of digits has some of its devices: abort it first");
    bench.says(&[("verdict b 2 2 confirmed", "clear 2")]);
    assert_eq!(bench.turned(3, "anna", Wish::Undo), "a 6: rollback 1");
    assert_eq!(bench.reason(3), "undone by anna");
    assert_eq!(bench.turned(9, "anna", Wish::Undo), "there is no rollout 9");
}

#[test]
fn a_breach_pauses_where_the_policy_says_so_and_a_person_may_go_on_in_spite_of_it() {
    let mut bench = there();
    let pause = Policy {
        on_breach: OnBreach { action: Action::Pause },
        ..policy("[[wave]]\nsize = \"1\"\n[[wave]]\nsize = \"2\"")
    };
    bench.ask("1", "all", pause);
    bench.says(&[("verdict a 1 1 refused", "a 3: nothing")]);
    assert_eq!(bench.phase(1), "Paused");
    assert!(
        bench.reason(1).starts_with("max_failed: 1 device(s) failed, allowed were 0; E_GOLDEN"),
        "{}",
        bench.reason(1)
    );
    // This wave in spite of it: the next one is looked at anew, and finds the same.
    assert_eq!(bench.turned(1, "bert", Wish::Resume), "");
    assert_eq!(bench.phase(1), "Paused");
    assert_eq!(bench.turned(1, "bert", Wish::Resume), "c 2: install 1");
}

#[test]
fn a_persons_pause_waives_nothing_and_what_waits_for_approval_is_looked_at() {
    let two = "[[wave]]\nsize = \"1\"\n[[wave]]\nsize = \"2\"\napproval = true";
    let mut bench = there();
    bench.ask("1", "all", policy(two));
    bench.turned(1, "bert", Wish::Pause);
    bench.turned(1, "bert", Wish::Resume);
    bench.says(&[("verdict a 1 1 reverted", "clear 1, a 3: nothing")]);
    assert_eq!(bench.phase(1), "Reverting");
    let mut bench = there();
    bench.ask("1", "all", policy(two));
    bench.says(&[("verdict a 1 1 confirmed", "")]);
    assert_eq!(bench.phase(1), "Approval");
    bench.says(&[("verdict a 2 1 reverted", "clear 1, a 3: nothing")]);
    assert_eq!(bench.phase(1), "Reverting");
    assert_eq!(bench.turned(1, "bert", Wish::Approve), "rollout 1 is reverting: it cannot be asked to approve");
}

#[test]
fn who_is_silent_for_too_long_holds_no_place_and_who_is_not_meant_any_more_gets_nothing() {
    let mut bench = there();
    bench.label("b", "site", "x");
    bench.label("c", "site", "x");
    let text = "at_once = 1\n[silence]\ndeadline = \"10m\"\nmax_unknown = 1.0\n[[wave]]\nsize = \"100%\"";
    assert_eq!(bench.ask("1", "site = x or id = a", policy(text)), "publish 1, a 2: install 1");
    bench.says(&[("wait 599", ""), ("wait 1", "c 2: install 1")]);
    bench.label("b", "site", "y");
    bench.says(&[("verdict c 1 1 confirmed", "clear 1")]);
    assert!(!bench.bridge.rollouts()[&1].members[&device("b")].is_hit());
    assert_eq!(bench.phase(1), "Completed");
}

#[test]
fn devices_that_fall_silent_stop_a_rollout_and_those_that_were_away_do_not() {
    let hour = "[silence]\ndeadline = \"1h\"\n[[wave]]\nsize = \"2\"";
    // `c` is away, and gets it whenever it comes.
    let mut bench = fleet(&[("here a", ""), ("here b", "")]);
    assert_eq!(bench.ask("1", "all", policy(hour)), "publish 1, a 2: install 1, c 2: install 1");
    bench.says(&[("verdict a 1 1 confirmed", "b 2: install 1"), ("verdict b 1 1 confirmed", "")]);
    assert_eq!(bench.phase(1), "Rolling", "the last wave waits for it until its time is over");
    bench.says(&[("wait 3600", "clear 1")]);
    assert_eq!(bench.phase(1), "Completed");
    bench.says(&[("here c", ""), ("verdict c 1 1 confirmed", "")]);
    assert_eq!(bench.bridge.rollouts()[&1].count(Outcome::Confirmed), 3);
    // `c` was there, and is bricked by the release.
    let mut bench = there();
    bench.ask("1", "all", policy(hour));
    bench.says(&[("gone c", ""), ("verdict a 1 1 confirmed", ""), ("wait 3599", "")]);
    assert_eq!(bench.phase(1), "Rolling");
    bench.says(&[("wait 1", "clear 1, a 3: nothing, c 3: nothing")]);
    assert!(
        bench.reason(1).contains("of 1 of 2 device(s) that were there nothing is heard, at most 5.0 %"),
        "{}",
        bench.reason(1)
    );
    // One that confirmed and then fell silent counts too, while the wave is looked at.
    let mut bench = there();
    bench.ask("1", "all", policy("[silence]\ndeadline = \"1h\"\n[[wave]]\nsize = \"2\"\nsoak = \"2h\""));
    bench.says(&[("verdict a 1 1 confirmed", ""), ("verdict c 1 1 confirmed", ""), ("gone c", "")]);
    assert_eq!(bench.phase(1), "Soaking");
    bench.says(&[("wait 3600", "clear 1, a 3: nothing, c 3: nothing")]);
    assert!(bench.reason(1).starts_with("silence"), "{}", bench.reason(1));
}

#[test]
fn a_wave_soaks_and_is_held_for_evidence_and_then_people_decide() {
    let mut bench = there();
    let text = "[gates]\nmin_answers = 100\npatience = \"1h\"\n[[wave]]\nsize = \"1\"\nsoak = \"30m\"";
    bench.ask("1", "all", policy(text));
    bench.says(&[("verdict a 1 1 confirmed", "")]);
    assert_eq!(bench.bridge.deadline(), Some(bench.unix + 1_800_000));
    bench.says(&[("wait 1799", ""), ("wait 1", "")]);
    assert_eq!(bench.phase(1), "Soaking", "it has not answered enough");
    bench.says(&[("wait 3599", "")]);
    bench.measured("a", 1, Figures { answers: 99, ..Figures::default() });
    bench.says(&[("wait 1", "")]);
    assert_eq!(bench.reason(1), "not enough evidence after wave 1: 99 of at least 100 answers were seen");
    assert_eq!(bench.turned(1, "bert", Wish::Resume), "", "the wave soaks anew");
    bench.measured("a", 1, Figures { answers: 1, ..Figures::default() });
    bench.says(&[("wait 1800", "b 2: install 1, c 2: install 1")]);
}

#[test]
fn devices_begin_as_fast_as_the_pace_lets_them() {
    let mut bench = there();
    let pace = Pace {
        base_rate_per_minute: 0.5,
        increment_factor: 4.0,
        rate_increase_criteria: RateIncrease { number_of_succeeded_things: 1 },
        maximum_per_minute: 2.0,
    };
    let all = Policy {
        pace: Some(pace),
        waves: vec![Wave { size: WaveSize::Percent(100), soak: Span(0), approval: false }],
        ..Policy::default()
    };
    assert_eq!(bench.ask("1", "all", all), "publish 1, a 2: install 1");
    assert_eq!(bench.bridge.deadline(), Some(bench.unix + 120_000));
    bench.says(&[
        ("wait 119", ""),
        ("wait 1", "c 2: install 1"),
        // One has confirmed: four times as fast.
        ("verdict a 1 1 confirmed", ""),
        ("wait 29", ""),
        ("wait 1", "b 2: install 1"),
    ]);
}

#[test]
fn devices_are_changed_in_their_windows_by_their_own_clocks() {
    let mut bench = there();
    bench.label("b", "timezone", "Europe/Berlin");
    bench.label("c", "timezone", "America/New_York");
    // Midnight, UTC, on a Saturday.
    bench.unix = 1_705_708_800_000;
    let night = Window { days: Vec::new(), from: "22:00".parse().unwrap(), to: "04:00".parse().unwrap() };
    let all = vec![Wave { size: WaveSize::Percent(100), soak: Span(0), approval: false }];
    let nights = Policy { windows: vec![night.clone()], waves: all.clone(), ..Policy::default() };
    // It is 19:00 in New York.
    assert_eq!(bench.ask("1", "all", nights), "publish 1, a 2: install 1, b 2: install 1");
    bench.says(&[("wait 10740", ""), ("wait 60", "c 2: install 1")]);
    let days = |days: &str, at: u64| {
        let mut bench = there();
        bench.unix = 1_705_708_800_000 + at * HOUR;
        let days = days.split_whitespace().map(|day| serde_json::from_value(day.into()).unwrap()).collect();
        bench.ask(
            "1",
            "all",
            Policy { windows: vec![Window { days, ..night.clone() }], waves: all.clone(), ..Policy::default() },
        )
    };
    let install = "publish 1, a 2: install 1, b 2: install 1, c 2: install 1";
    assert_eq!(days("fri", 1), install, "the night of Friday goes on into Saturday");
    assert_eq!(days("sat", 1), "publish 1");
    assert_eq!(days("sat sun", 23), install);
    assert_eq!(days("mon", 23), "publish 1");
}

#[test]
fn what_was_refused_is_tried_again_after_a_time_in_the_box() {
    let mut bench = there();
    let retry = Retry { times: 1, after: "10m".parse().unwrap(), budget: 5 };
    let patient = Policy { retry, ..policy("[[wave]]\nsize = \"1\"") };
    bench.ask("1", "all", patient);
    bench.says(&[
        ("verdict a 1 1 refused", "a 3: nothing"),
        ("wait 599", ""),
        ("wait 1", "a 4: install 1"),
        ("verdict a 2 1 refused", "clear 1, a 5: nothing"),
    ]);
    // What served and was taken back is evidence, and not tried again.
    let mut bench = there();
    bench.ask("1", "all", Policy { retry, ..policy("[[wave]]\nsize = \"1\"") });
    bench.says(&[("verdict a 1 1 reverted", "clear 1, a 3: nothing")]);
    assert_eq!(bench.bridge.rollouts()[&1].members[&device("a")].place, Place::Returning);
}

#[test]
fn a_device_that_comes_later_joins_and_one_that_is_pinned_does_not() {
    let mut bench = there();
    bench.label("b", "pinned", "yes");
    assert_eq!(bench.ask("1", "not label.later", policy("[[wave]]\nsize = \"1\"")), "publish 1, a 2: install 1");
    bench.says(&[
        // By its place among all it is a canary.
        ("enrol d", "d 2: install 1"),
        ("verdict a 1 1 confirmed", "c 2: install 1"),
        ("enrol e", "e 2: install 1"),
    ]);
    bench.label("c", "pinned", "yes");
    let left: Vec<&str> = bench.bridge.rollouts()[&1].members.keys().map(|id| id.as_str()).collect();
    assert_eq!(left, ["a", "c", "d", "e"]);
    let preview = bench.bridge.preview(Now { unix: bench.unix }, &request("2", Targets::All, Policy::default()));
    assert!(matches!(preview, Err(Rejection::Invalid(why)) if why.contains("which is under way and goes first")));
}

#[test]
fn one_that_comes_late_does_not_begin_the_soak_anew_and_the_last_wave_waits_for_it() {
    let mut bench = fleet(&[("here a", ""), ("here b", "")]);
    let text = "[[wave]]\nsize = \"2\"\nsoak = \"1h\"\n[[wave]]\nsize = \"3\"\nsoak = \"1h\"";
    assert_eq!(bench.ask("1", "all", policy(text)), "publish 1, a 2: install 1, c 2: install 1");
    bench.says(&[
        ("verdict a 1 1 confirmed", ""),
        ("wait 3000", ""),
        ("here c", ""),
        // Its verdict comes in the next wave.
        ("wait 600", "b 2: install 1"),
        ("verdict c 1 1 confirmed", ""),
        ("verdict b 1 1 confirmed", ""),
        ("enrol d", "d 2: install 1"),
        ("wait 60", ""),
        ("here d", ""),
        ("wait 3540", ""),
    ]);
    assert_eq!(bench.phase(1), "Soaking");
    bench.says(&[("verdict d 1 1 confirmed", "clear 1")]);
    assert_eq!(bench.phase(1), "Completed");
}

#[test]
fn a_preview_says_who_and_who_not_and_what_is_weak() {
    let mut bench = there();
    bench.label("b", "pinned", "yes");
    bench.ask("1", "id = a", Policy::default());
    let preview =
        bench.bridge.preview(Now { unix: bench.unix }, &request("2", Targets::All, Policy::default())).unwrap();
    let meant: Vec<&str> = preview.rollout.members.keys().map(|id| id.as_str()).collect();
    let out: Vec<(&str, &str)> = preview.left_out.iter().map(|(id, why)| (id.as_str(), why.as_str())).collect();
    assert_eq!(meant, ["c"]);
    assert_eq!(out[0].0, "a");
    assert!(out[0].1.starts_with("belongs to rollout 1"));
    assert_eq!(out[1], ("b", "is pinned: take its label `pinned` away first"));
    assert!(preview.warnings.iter().any(|w| w.contains("too few to be compared")), "{:?}", preview.warnings);
    let bad = Policy { at_once: Some(0), ..Policy::default() };
    assert!(bench.bridge.preview(Now::default(), &request("2", Targets::All, bad)).is_err());
}

#[test]
fn where_the_root_keeps_rollbacks_from_the_director_no_rollout_counts_on_one() {
    let mut bench = there();
    let root = bench.signer.root_after(bench.signer.root_bytes(), |root| root.policy.director_may_rollback = false);
    bench.step(Event::DocumentPushed { kind: DocumentKind::Root, bytes: root }).answer.unwrap();
    let pause = Policy { on_breach: OnBreach { action: Action::Pause }, ..Policy::default() };
    assert!(bench.ask("1", "all", Policy::default()).contains("choose `action = \"pause\"`"));
    assert!(bench.ask("2", "all", pause.clone()).contains("install 2"));
    assert!(bench.turned(1, "anna", Wish::Abort { keep: false }).contains("abort with --keep"));
    bench.turned(1, "anna", Wish::Abort { keep: true });
    assert!(bench.ask("1", "all", pause).contains("runs a newer release"));
}

#[test]
fn every_phase_says_what_may_follow_and_the_diagram_is_that_table() {
    let phases = [
        Phase::Draft,
        Phase::Approval { wave: 0 },
        Phase::Rolling { wave: 0 },
        Phase::Soaking { wave: 0, since: 0 },
        Phase::Paused { wave: 0, reason: String::new(), by_person: true },
        Phase::Reverting { wave: 0, reason: String::new() },
        Phase::Stopped { wave: 0, reason: String::new() },
        Phase::Completed,
    ];
    assert_eq!(phases.each_ref().map(Phase::name), Phase::NAMES);
    let why = String::new;
    let turns = [
        ("begin, if it needs approval", Turn::Begun { approval: true }),
        ("begin", Turn::Begun { approval: false }),
        ("approve", Turn::Approved),
        ("all answered", Turn::Answered { at: 0 }),
        ("soaked, last wave", Turn::Passed { last: true, approval: false }),
        ("soaked, next needs approval", Turn::Passed { last: false, approval: true }),
        ("soaked", Turn::Passed { last: false, approval: false }),
        ("breach: revert", Turn::Breached { reason: why(), revert: true }),
        ("breach: pause", Turn::Breached { reason: why(), revert: false }),
        ("pause, or no evidence", Turn::Held { reason: why(), by_person: true }),
        ("resume", Turn::Resumed),
        ("abort", Turn::Aborted { reason: why(), keep: false }),
        ("abort and keep", Turn::Aborted { reason: why(), keep: true }),
        ("undo", Turn::Undone { reason: why() }),
        ("all are back", Turn::Returned),
    ];
    let mut lines = vec!["stateDiagram-v2".to_owned(), "    [*] --> draft".to_owned()];
    for phase in &phases {
        for (label, turn) in &turns {
            if let Some(next) = phase.next(turn.clone()) {
                lines.push(format!("    {} --> {}: {label}", phase.name(), next.name()));
            }
        }
    }
    let diagram = lines.join("\n");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rollout.md")).unwrap();
    assert!(page.contains(&diagram), "docs/rollout.md does not hold the table of phases as it is:\n{diagram}");
}

#[test]
fn the_policies_of_the_page_are_policies() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rollout.md")).unwrap();
    let policies: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(policies.len(), 3);
    policies.into_iter().for_each(|text| drop(policy(text)));
}

#[test]
fn a_policy_says_what_is_wrong_with_it() {
    for (text, expected) in [
        ("[gates]\ninstall_failed = { max = 2 }", "install_failed.max is a share of 0 to 1, and not 2"),
        ("[gates]\nerrors = { vs = \"control\", worse_by = 0.0 }", "errors.worse_by is above 0, and not 0"),
        ("[gates]\nlatency = { vs = \"self\", ratio = 1.0 }", "latency.ratio is above 1, and not 1"),
        ("[silence]\nmax_unknown = -0.1", "silence.max_unknown is a share of 0 to 1, and not -0.1"),
        (
            "[pace]\nbaseRatePerMinute = 1.0\nincrementFactor = 1e300",
            &format!("pace.incrementFactor is at least 1, and not {}", 1e300),
        ),
        ("[silence]\ndeadline = \"0s\"", "silence.deadline is a second at least"),
        ("timezone = \"Europe/Bremen\"", "there is no time zone `Europe/Bremen`"),
        ("[pace]\nbaseRatePerMinute = 0", "pace.baseRatePerMinute is above 0 and at most 1000000, and not 0"),
    ] {
        let policy: Policy = toml::from_str(text).unwrap();
        assert_eq!(policy.check().unwrap_err(), expected, "{text}");
    }
    for text in [
        "[gate]\n",
        "[[wave]]\nsize = \"0%\"",
        "[[wave]]\nsize = \"1\"\nsoak = \"30\"",
        "[[window]]\nfrom = \"24:00\"\nto = \"1:00\"",
    ] {
        assert!(toml::from_str::<Policy>(text).is_err(), "{text}");
    }
    let whole = Policy {
        windows: vec![Window { days: Vec::new(), from: "22:00".parse().unwrap(), to: "04:00".parse().unwrap() }],
        ..Policy::default()
    };
    let again: Policy = serde_json::from_str(&serde_json::to_string(&whole).unwrap()).unwrap();
    assert_eq!(again, whole);
    // A gate that was turned off stays off when it lay on a disk.
    let off: Policy = serde_json::from_str(r#"{"gates":{"errors":null,"drift":null}}"#).unwrap();
    let again: Policy = serde_json::from_str(&serde_json::to_string(&off).unwrap()).unwrap();
    assert_eq!((again.gates.errors, again.gates.drift), (None, None));
    for (text, span) in [("90s", 90_000), ("30m", 1_800_000), ("24h", 86_400_000), ("7d", 604_800_000)] {
        assert_eq!((text.parse(), Span(span).to_string().parse()), (Ok(Span(span)), Ok(Span(span))));
    }
    for bad in ["", "h", "24", "-1h", "1.5h", "24 h", "1y", "99999999999999999999h", "18446744073709551615d", "1ä"] {
        assert!(bad.parse::<Span>().is_err(), "{bad}");
    }
}
