//! The transitions of land, as tables: what happens on the left, what the core asks for on the right.
//!
//! One stream, `digits`; releases are numbers, devices are `a`, `b`, `c`. They enter the waves of
//! `digits` in the order a, c, b: entry is by a stable hash.

mod access;
mod commands;
mod delivery;
mod documents;
mod drift;
mod identity;
mod judged;
mod plans;
mod returned;
mod rollouts;
mod samples;
mod steps;
mod stock;
mod target;
mod twin;
mod waves;

use bridge_core::policy::{Gates, Silence, Wave};
use bridge_core::{
    Answer, Bridge, Committed, Credential, Disbelief, Effect, Event, Invitation, Now, Policy, Record, Rejection,
    RolloutRequest, Span, Status, Targets,
};
use protocol::{ClockState, DeviceId, DocumentKind, Generation, Outcome, Profile, Report, SPEC, Verdict};
use std::convert::Infallible;
use trust::{Digest, Intent, RevokedBundle, Severity, WhichBundle};
use world::signer::{Bundle, FLEET, Signer, trial};

/// Asked by anna.
fn request(release: &str, to: Targets, policy: Policy) -> RolloutRequest {
    let (stream, version) = ("digits".parse().unwrap(), format!("1.{release}.0"));
    RolloutRequest { stream, version, to, policy, by: "anna".into(), draft: false }
}

struct Bench {
    signer: Signer,
    bridge: Bridge,
    saved: Vec<Record>,
    bundles: Vec<Bundle>,
    unix: u64,
    certificates: usize,
}

const HOUR: u64 = 3_600_000;

fn profile() -> Profile {
    Profile {
        board: "x".into(),
        arch: "aarch64".into(),
        cores: 1,
        ram_mb: 64,
        models_mb: 64,
        metered: false,
        agent: "0.1.0".into(),
    }
}

fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

impl Bench {
    fn new() -> Self {
        let signer = Signer::new(1);
        let bundles = (1..=3).map(|release| signer.bundle("digits", release, |_| ())).collect();
        let bridge = Bridge::restore(FLEET.parse().unwrap(), []).unwrap();
        let root = signer.root_bytes().to_vec();
        let mut bench = Self { signer, bridge, saved: Vec::new(), bundles, unix: 1_700_000_000_000, certificates: 0 };
        bench.step(Event::DocumentPushed { kind: DocumentKind::Root, bytes: root });
        bench
    }

    fn release(&self, digest: Digest) -> u64 {
        self.bundles.iter().find(|b| b.digest == digest).unwrap().release
    }

    /// `verdict DEVICE SEQ RELEASE OUTCOME [GENERATION]`, by default of the device's latest assignment.
    fn verdict(&self, words: &[&str]) -> Event {
        let id = device(words[0]);
        let bundle = &self.bundles[words[2].parse::<usize>().unwrap() - 1];
        let latest = self.bridge.devices().get(&id).map_or(0, |d| d.generation);
        let outcome = match words[3] {
            "confirmed" => Outcome::Confirmed,
            "reverted" => Outcome::Reverted,
            _ => Outcome::Refused,
        };
        Event::VerdictReceived(Verdict {
            spec: SPEC,
            fleet: FLEET.parse().unwrap(),
            device_id: id,
            seq: words[1].parse().unwrap(),
            generation: Generation { role_epoch: 1, seq: words.get(4).map_or(latest, |g| g.parse().unwrap()) },
            stream: bundle.stream.clone(),
            release: bundle.release,
            statement_sha256: bundle.digest.0,
            outcome,
            code: (outcome != Outcome::Confirmed).then(|| "E_GOLDEN".into()),
            detail: None,
            answers: 0,
            errors: 0,
            shadow: None,
        })
    }

    /// `start RELEASE MAX_FAILED DEADLINE_S WAVE...`; `only` before the waves for device `a` alone, `by:N` among them for N at a
    /// time.
    fn start(&self, words: &[&str]) -> Event {
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let only = words.get(3) == Some(&"only");
        let at_once = words.iter().find_map(|w| w.strip_prefix("by:")).map(|n| n.parse().unwrap());
        let waves = words.iter().skip(3 + usize::from(only)).filter(|w| !w.starts_with("by:"));
        let wave = |w: &&str| Wave { size: w.parse().unwrap(), soak: Span(0), approval: false };
        let policy = Policy {
            waves: waves.map(wave).collect(),
            trial: trial(10, 0, 60),
            gates: Gates { max_failed: number(1), ..Gates::default() },
            silence: Silence { deadline: Span::seconds(number(2)), ..Silence::default() },
            at_once,
            ..Policy::default()
        };
        let to = if only { Targets::Devices([device("a")].into()) } else { Targets::All };
        Event::RolloutRequested(Box::new(request(words[0], to, policy)))
    }

    /// A certificate for `key`, good for an hour; its serial number is the key and how many there were before.
    fn credential(&mut self, key: &str) -> Credential {
        self.certificates += 1;
        let serial = format!("{key}{}", self.certificates);
        let certificate = Digest::of(serial.as_bytes());
        Credential { key: key.as_bytes().to_vec(), serial, certificate, until: self.unix + HOUR }
    }

    /// Made now, or an hour ago (`old`); it lets in at once, or says that a person decides (`pending`).
    fn invitation(&self, kind: Option<&&str>) -> Invitation {
        let age = if kind == Some(&"old") { HOUR } else { 0 };
        Invitation { made: self.unix - age, pending: kind == Some(&"pending") }
    }

    fn status(&self, id: &str) -> Option<Status> {
        self.bridge.devices().get(&device(id)).map(|d| d.status)
    }

    fn disbelieved(&self, why: Disbelief) -> u64 {
        self.bridge.disbelieved().get(&why).copied().unwrap_or_default()
    }

    fn event(&mut self, words: &[&str]) -> Event {
        match words[0] {
            "hello" => {
                let (id, key) = (device(words[1]), words.get(3).unwrap_or(&words[1]).as_bytes().to_vec());
                let (boot, seq) = words[2].split_once('.').unwrap_or(("1", words[2]));
                let (boot, seq) = (boot.parse().unwrap(), seq.parse().unwrap());
                // `hello DEVICE [BOOT.]SEQ [KEY [NONCE]]`
                let nonce = words.get(4).map_or(format!("of {}", words[1]), ToString::to_string);
                let profile = profile();
                Event::HelloReceived { device: id, boot, seq, key, nonce, profile }
            }
            "enrol" => Event::DeviceEnrolled {
                device: device(words[1]),
                credential: self.credential(words.get(2).unwrap_or(&words[1])),
                profile: profile(),
                invitation: self.invitation(words.get(3)),
            },
            // `renew DEVICE KEY [SHOWN]`
            "renew" => {
                let shown = words.get(3).unwrap_or(&words[1]).as_bytes().to_vec();
                Event::KeyRenewed { device: device(words[1]), shown, credential: self.credential(words[2]) }
            }
            "return" => Event::DeviceReturned { device: device(words[1]), credential: self.credential(words[2]) },
            "use" => Event::KeyUsed { device: device(words[1]), key: words[2].as_bytes().to_vec() },
            "revoke" => Event::DeviceRevoked { device: device(words[1]) },
            "retire" => Event::DeviceRetired { device: device(words[1]) },
            "report" => report(words[1], 1, words[2].parse().unwrap(), None),
            "forged" => Event::MessageDisbelieved { why: Disbelief::Signature },
            "here" => Event::PresenceReceived { device: device(words[1]), online: true },
            "gone" => Event::PresenceReceived { device: device(words[1]), online: false },
            "approve" => Event::DeviceApproved { device: device(words[1]) },
            "reject" => Event::DeviceRejected { device: device(words[1]) },
            "push" => Event::ReleasePushed(self.bundles[words[1].parse::<usize>().unwrap() - 1].released()),
            "start" => self.start(&words[1..]),
            "verdict" => self.verdict(&words[1..]),
            // `need DEVICE RELEASE [FIRST-LAST]`: the documents, or chunks by number.
            "need" => {
                let bundle = self.bundles[words[2].parse::<usize>().unwrap() - 1].digest;
                let chunks: Vec<[u8; 32]> = words.get(3).map_or(Vec::new(), |range| {
                    let (first, last) = range.split_once('-').unwrap();
                    let numbers = first.parse::<u64>().unwrap()..=last.parse().unwrap();
                    numbers.map(|number| Digest::of(&number.to_be_bytes()).0).collect()
                });
                Event::ChunksNeeded { device: device(words[1]), bundle, documents: chunks.is_empty(), chunks }
            }
            // `connect remembered|forgotten [forgetful]`: one that is forgetful retains nothing.
            "connect" => {
                let retains = words.get(2) != Some(&"forgetful");
                Event::BrokerConnected { remembered: words[1] == "remembered", retains }
            }
            "gc" => Event::StockCleared { before: bridge_core::UnixMillis::MAX },
            // `age ROLLOUT SECONDS`: it may go if it ended longer ago.
            "age" => Event::RolloutAged {
                rollout: words[1].parse().unwrap(),
                before: self.unix - words[2].parse::<u64>().unwrap() * 1_000,
            },
            "missed" => {
                let bundle = self.bundles[words[1].parse::<usize>().unwrap() - 1].digest;
                Event::BundleMissed { bundle }
            }
            "wait" => {
                self.unix += words[1].parse::<u64>().unwrap() * 1_000;
                Event::DeadlineReached
            }
            other => panic!("no event is called {other}"),
        }
    }

    fn happen(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0] == "restart" {
            self.bridge = Bridge::restore(FLEET.parse().unwrap(), self.saved.clone()).unwrap();
            return Vec::new();
        }
        let event = self.event(&words);
        let committed = self.step(event);
        let answer = match committed.answer {
            Ok(Answer::Done | Answer::Known { .. } | Answer::Taken { .. }) => None,
            Ok(Answer::Commanded { seq, .. }) => Some(format!("command {seq}")),
            Ok(Answer::FannedOut { fan_out }) => Some(format!("fan-out {fan_out}")),
            Ok(Answer::Wanted { request }) => Some(format!("wanted {request}")),
            Ok(Answer::Started { rollout }) => Some(format!("started {rollout}")),
            Ok(Answer::Forgotten { releases }) => Some(format!("forgotten {}", releases.len())),
            Err(Rejection::Conflict(_)) => Some("conflict".into()),
            Err(Rejection::NotFound(_)) => Some("not found".into()),
            Err(Rejection::Invalid(_)) => Some("invalid".into()),
            Err(Rejection::Refused(refusal)) => Some(refusal.code.to_string()),
        };
        committed.effects.iter().filter_map(|e| self.say(e)).chain(answer).collect()
    }

    fn step(&mut self, event: Event) -> Committed {
        let step = self.bridge.step(Now { unix: self.unix }, event);
        let saved = &mut self.saved;
        let committed = step.commit(|records| {
            saved.extend(records.iter().cloned());
            Ok::<_, Infallible>(())
        });
        let Ok(committed) = committed;
        // As it lay on a disk.
        for record in saved.iter_mut().rev().take(24) {
            let text = serde_json::to_string(record).unwrap();
            *record = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        }
        let again = Bridge::restore(FLEET.parse().unwrap(), self.saved.clone()).unwrap();
        assert_eq!(again.rollouts(), self.bridge.rollouts(), "what the core holds is what was saved");
        assert_eq!(again.releases(), self.bridge.releases(), "what the core holds is what was saved");
        assert_eq!(again.devices(), self.bridge.devices(), "what the core holds is what was saved");
        assert_eq!(again.fan_outs(), self.bridge.fan_outs(), "what the core holds is what was saved");
        assert_eq!(again.withdrawn(), self.bridge.withdrawn(), "what the core holds is what was saved");
        assert!(again.documents().eq(self.bridge.documents()), "what the core holds is what was saved");
        committed
    }

    /// Documents and beacons are left out; they have tests of their own.
    fn say(&self, effect: &Effect) -> Option<String> {
        Some(match effect {
            Effect::PublishAssignment(draft) => {
                let intent = |i: Intent| match i {
                    Intent::Install => "install",
                    Intent::Rollback => "rollback",
                    Intent::Hold => "hold",
                };
                let order = draft
                    .streams
                    .first()
                    .map_or("nothing".into(), |s| format!("{} {}", intent(s.intent), self.release(s.statement_sha256)));
                format!("{} {}: {order}", draft.device, draft.seq)
            }
            Effect::PublishBundle { bundle } => format!("publish {}", self.release(*bundle)),
            Effect::PublishParts { bundle, chunks, .. } if chunks.is_empty() => {
                format!("parts of {}", self.release(*bundle))
            }
            Effect::PublishParts { bundle, chunks, .. } => {
                format!("parts of {}: {}", self.release(*bundle), chunks.len())
            }
            Effect::LookForBundles { bundles } => {
                let releases: Vec<String> = bundles.iter().map(|b| self.release(*b).to_string()).collect();
                format!("look for {}", releases.join(" "))
            }
            Effect::ClearChunks { bundle, stay } if stay.is_empty() => format!("clear {}", self.release(*bundle)),
            Effect::ClearChunks { bundle, stay } => {
                let stay: Vec<String> = stay.iter().map(|b| self.release(*b).to_string()).collect();
                format!("clear {} but what is of {}", self.release(*bundle), stay.join(" "))
            }
            Effect::RemoveBundle { bundle } => format!("remove {}", self.release(*bundle)),
            Effect::PublishCommand(draft) => format!("command {} {}", draft.device, draft.seq),
            Effect::ClearDevice { device } => format!("clear {device}"),
            Effect::EndSession { device } => format!("end {device}"),
            Effect::PublishWithdrawn(all) => {
                let serials: Vec<&str> = all.iter().map(|w| w.serial.as_str()).collect();
                format!("withdrawn [{}]", serials.join(" "))
            }
            Effect::PublishDocument(_) | Effect::PublishBeacon(_) | Effect::Adopt { .. } => return None,
        })
    }

    fn phase(&self, rollout: u64) -> String {
        format!("{:?}", self.bridge.rollouts()[&rollout].phase).split([' ', '{']).next().unwrap().to_owned()
    }
}

/// Lives `script` and compares what the core asked for.
fn check(script: &[(&str, &str)]) -> Bench {
    let mut bench = Bench::new();
    for (at, (event, expected)) in script.iter().enumerate() {
        assert_eq!(bench.happen(event).join(", "), *expected, "line {at}: {event}");
    }
    bench
}

/// `script`, with devices a, b and c enrolled and every release pushed.
fn fleet(script: &[(&str, &str)]) -> Bench {
    let before = [
        ("enrol a", "a 1: nothing"),
        ("enrol b", "b 1: nothing"),
        ("enrol c", "c 1: nothing"),
        ("push 1", ""),
        ("push 2", ""),
        ("push 3", ""),
    ];
    check(&[&before, script].concat())
}

#[test]
fn waves_follow_each_other_and_then_it_is_completed() {
    let bench = fleet(&[
        ("start 1 0 600 1 100%", "publish 1, a 2: install 1, started 1"),
        ("verdict a 1 1 confirmed", "b 2: install 1, c 2: install 1"),
        ("verdict b 1 1 confirmed", ""),
        ("verdict c 1 1 confirmed", "clear 1"),
    ]);
    assert_eq!(bench.phase(1), "Completed");
}

#[test]
fn a_bad_release_is_stopped_and_those_who_have_it_are_sent_back() {
    let bench = fleet(&[
        ("start 1 0 600", "publish 1, a 2: install 1, b 2: install 1, c 2: install 1, started 1"),
        ("verdict a 1 1 confirmed", ""),
        ("verdict b 1 1 confirmed", ""),
        ("verdict c 1 1 confirmed", "clear 1"),
        ("here a", ""),
        ("start 2 0 600 2", "publish 2, a 3: install 2, c 3: install 2, started 2"),
        ("verdict c 2 2 confirmed", ""),
        ("verdict a 2 2 reverted", "clear 2, a 4: rollback 1, c 4: rollback 1"),
        // What they say of going back is no word on the release; it ends when all are back.
        ("verdict a 3 1 confirmed", ""),
    ]);
    assert_eq!(bench.phase(2), "Reverting");
    let mut bench = bench;
    bench.happen("verdict c 3 1 confirmed");
    assert_eq!(bench.phase(2), "Stopped");
    assert_eq!(bench.bridge.rollouts()[&2].hit(), 2);
}

#[test]
fn a_device_that_ran_nothing_before_is_sent_back_to_nothing() {
    fleet(&[
        ("start 1 0 600 1", "publish 1, a 2: install 1, started 1"),
        ("verdict a 1 1 refused", "clear 1, a 3: nothing"),
    ]);
}

#[test]
fn a_failure_that_is_allowed_sends_that_device_back_and_goes_on() {
    let bench = fleet(&[
        ("start 1 1 600 1 100%", "publish 1, a 2: install 1, started 1"),
        ("verdict a 1 1 refused", "a 3: nothing, b 2: install 1, c 2: install 1"),
        ("verdict b 1 1 confirmed", ""),
        ("verdict c 1 1 confirmed", "clear 1"),
        // It never ran release 1, so that is not what it goes back to.
        ("start 2 0 600 only", "publish 2, a 4: install 2, started 2"),
        ("verdict a 2 2 refused", "clear 2, a 5: nothing"),
    ]);
    assert_eq!(bench.phase(1), "Completed");
}

#[test]
fn a_wave_that_stays_silent_is_stopped() {
    let bench = fleet(&[
        ("start 1 0 600 1", "publish 1, a 2: install 1, started 1"),
        ("wait 599", ""),
        ("wait 1", "clear 1, a 3: nothing"),
        // Too late: it is over.
        ("verdict a 1 1 confirmed 2", ""),
    ]);
    assert_eq!(bench.phase(1), "Reverting");
}

#[test]
fn a_verdict_counts_once_and_only_for_what_was_asked() {
    let bench = fleet(&[
        ("start 1 1 600", "publish 1, a 2: install 1, b 2: install 1, c 2: install 1, started 1"),
        ("verdict a 2 1 confirmed", ""),
        ("verdict a 1 1 reverted", ""),
        ("verdict a 2 1 reverted", ""),
        ("verdict b 1 2 reverted", ""),
        ("verdict b 1 1 reverted 1", ""),
        ("verdict x 1 1 reverted", ""),
    ]);
    let results: Vec<_> = bench.bridge.rollouts()[&1].results().map(|(id, r)| (id.as_str(), r.outcome)).collect();
    assert_eq!(results, [("a", Outcome::Confirmed)]);
}

#[test]
fn a_verdict_of_a_stopped_rollout_does_not_count_for_the_next_one() {
    let bench = fleet(&[
        ("start 1 0 600 only", "publish 1, a 2: install 1, started 1"),
        ("wait 600", "clear 1, a 3: nothing"),
        ("start 1 0 600 only", "publish 1, a 4: install 1, started 2"),
        ("verdict a 1 1 reverted 2", ""),
        ("verdict a 2 1 confirmed", "clear 1"),
    ]);
    assert_eq!(bench.phase(2), "Completed");
}

#[test]
fn a_request_that_makes_no_sense_is_turned_down() {
    fleet(&[
        ("start 9 0 600", "not found"),
        ("push 1", ""),
        ("start 1 0 600 only", "publish 1, a 2: install 1, started 1"),
        ("start 2 0 600 only", "invalid"),
        // The other devices may have another rollout of the same stream.
        ("start 2 0 600", "publish 2, b 2: install 2, c 2: install 2, started 2"),
        ("verdict a 1 1 confirmed", "clear 1 but what is of 2"),
        ("start 1 0 600 only", "invalid"),
    ]);
    check(&[("push 1", ""), ("start 1 0 600", "invalid"), ("start 1 0 600 only", "not found")]);
}

#[test]
fn an_older_release_is_declared_a_rollback() {
    fleet(&[
        ("start 2 0 600 only", "publish 2, a 2: install 2, started 1"),
        ("verdict a 1 2 confirmed", "clear 2"),
        ("start 1 0 600 only", "publish 1, a 3: rollback 1, started 2"),
    ]);
    // Also when land took the newer one away in between: the device may not have heard of that.
    fleet(&[
        ("start 2 0 600 only", "publish 2, a 2: install 2, started 1"),
        ("wait 600", "clear 2, a 3: nothing"),
        ("start 1 0 600 only", "publish 1, a 4: rollback 1, started 2"),
    ]);
}

#[test]
fn after_a_connection_everyone_is_told_again() {
    let rolling = [("start 1 0 600 1", "publish 1, a 2: install 1, started 1")];
    let said = "a 2: install 1, b 1: nothing, c 1: nothing";
    let (forgotten, looked) = (format!("publish 1, {said}"), format!("look for 1, {said}"));
    let script = [
        // The first time is the first after a start, whatever the broker remembers.
        ("connect remembered", forgotten.as_str()),
        ("connect remembered", looked.as_str()),
        ("connect forgotten", &forgotten),
        ("restart", ""),
        ("connect remembered", &forgotten),
    ];
    fleet(&[&rolling[..], &script].concat());
}

#[test]
fn chunks_are_cleared_again_when_a_crash_may_have_lost_it() {
    fleet(&[
        ("start 1 0 600 only", "publish 1, a 2: install 1, started 1"),
        ("verdict a 1 1 confirmed", "clear 1"),
        ("start 2 0 600 only", "publish 2, a 3: install 2, started 2"),
        ("restart", ""),
        ("connect remembered", "clear 1 but what is of 2, publish 2, a 3: install 2, b 1: nothing, c 1: nothing"),
    ]);
}

/// A report of a device that names the beacon of that number.
fn report(id: &str, boot: u64, seq: u64, beacon: Option<u64>) -> Event {
    let generation = |seq| Generation { role_epoch: 1, seq };
    Event::ReportReceived(Box::new(Report {
        spec: SPEC,
        fleet: FLEET.parse().unwrap(),
        device_id: device(id),
        boot,
        seq,
        generation: Some(generation(1)),
        nonce: "of a".into(),
        root_version: 1,
        revocation: None,
        beacon: beacon.map(generation),
        clock: ClockState::Fresh,
        streams: Vec::new(),
        last_refusals: Vec::new(),
        profile: Profile {
            board: "x".into(),
            arch: "aarch64".into(),
            cores: 1,
            ram_mb: 64,
            models_mb: 64,
            metered: false,
            agent: "0.1.0".into(),
        },
    }))
}
