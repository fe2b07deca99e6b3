//! The bench of the tables: a device whose events are words, and whose effects are told in words.

use agent_core::{Agent, Described, Effect, Event, Ledger, Limits, Log, Now, Step};
use bridge_core::{AssignmentDraft, BeaconDraft, CommandDraft, Numbers};
use protocol::{CommandOutcome, DeviceId, DocumentKind, Outcome, Profile, Sandbox, StreamName};
use std::collections::BTreeMap;
use std::convert::Infallible;
use trust::{Code, Digest, Hardware, Intent, Refusal, Request, RevokedBundle, Root, Severity, Shadow, WhichBundle};
use world::signer::{Bundle, FIRST, FLEET, Signer, number, trial};

pub(crate) struct Bench {
    pub(crate) signer: Signer,
    pub(crate) device: DeviceId,
    pub(crate) agent: Agent,
    pub(crate) saved: Ledger,
    limits: Limits,
    pub(crate) documents: BTreeMap<Digest, Vec<u8>>,
    /// The newest root, as its signers made it.
    root: Vec<u8>,
    pub(crate) numbers: Numbers,
    /// Beacons that were signed, and seconds since the beginning; both go on over restarts.
    beacons: u64,
    /// The nonce of the latest hello.
    nonce: String,
    /// When that was said.
    greeted: u64,
    began: u64,
    pub(crate) mono: u64,
}

pub(crate) fn profile() -> Profile {
    Profile {
        board: "generic".into(),
        arch: "aarch64".into(),
        cores: 4,
        ram_mb: 512,
        models_mb: 512,
        metered: false,
        agent: "0.1.0".into(),
    }
}

/// All of the board's memory, and a link that costs nothing.
pub(crate) const LIMITS: Limits = Limits { models_mb: 512, metered: None };

pub(crate) fn stream() -> StreamName {
    "digits".parse().unwrap()
}

pub(crate) fn document(kind: DocumentKind, bytes: Vec<u8>) -> Event {
    Event::DocumentArrived { kind, bytes }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(LIMITS)
    }

    /// A device of these means.
    pub(crate) fn with(limits: Limits) -> Self {
        let (signer, device) = (Signer::new(1), "d-01".parse().unwrap());
        let documents = BTreeMap::new();
        let (agent, step) = Self::restore(&signer, &device, limits, Ledger::default(), &documents);
        let (root, numbers) = (signer.root_bytes().to_vec(), FIRST);
        let saved = Ledger::default();
        let mut bench = Self {
            signer,
            device,
            agent,
            saved,
            limits,
            documents,
            root,
            numbers,
            beacons: 0,
            nonce: String::new(),
            greeted: 0,
            began: 1_700_000_000,
            mono: 0,
        };
        bench.commit(step);
        bench
    }

    pub(crate) fn restore(
        signer: &Signer,
        device: &DeviceId,
        limits: Limits,
        ledger: Ledger,
        documents: &BTreeMap<Digest, Vec<u8>>,
    ) -> (Agent, Step) {
        let seed = format!("boot {}", ledger.boot + 1);
        let trust = signer.trust(device, &ledger, documents);
        Agent::restore(FLEET.parse().unwrap(), device.clone(), profile(), limits, seed, trust, ledger)
    }

    pub(crate) fn bundle(&self, release: u64) -> Bundle {
        self.signer.bundle("digits", release, |manifest| match release {
            5 => manifest.security_floor = number(4),
            6 => manifest.hardware = vec![Hardware { arch: "riscv64".into(), class: None, min_ram_mb: number(1) }],
            7 => manifest.min_agent = "9.0.0".into(),
            _ => {}
        })
    }

    /// The release whose bundle has this digest.
    pub(crate) fn release(&self, digest: trust::Digest) -> u64 {
        (1..10).find(|r| self.bundle(*r).digest == digest).unwrap()
    }

    pub(crate) fn commit(&mut self, step: Step) -> Vec<Effect> {
        let (saved, documents) = (&mut self.saved, &mut self.documents);
        let committed = step.commit(|memory| {
            documents.extend(memory.documents.iter().map(|d| (d.digest, d.bytes.clone())));
            *saved = memory.ledger.clone();
            Ok::<_, Infallible>(())
        });
        let Ok(effects) = committed;
        assert_eq!(*self.agent.ledger(), self.saved, "what the core holds is what was saved");
        for effect in &effects {
            if let Effect::SayHello { nonce, .. } = effect {
                assert_ne!(*nonce, self.nonce, "another for each hello");
                self.nonce.clone_from(nonce);
                self.greeted = self.began + self.mono / 1_000;
            }
        }
        effects
    }

    pub(crate) fn step(&mut self, event: Event) -> Vec<Effect> {
        let step = self.agent.step(Now { mono: self.mono, wall: None }, event);
        self.commit(step)
    }

    /// `assign GENERATION none | INTENT RELEASE [ANSWERS ERRORS SECONDS] [slow:PERCENT] [memory:PERCENT] [shadow:ANSWERS:PERCENT]`
    pub(crate) fn assign(&mut self, words: &[&str]) -> Event {
        let said = |what: &str| words.iter().find_map(|word| word.strip_prefix(what)?.strip_prefix(':'));
        let plain: Vec<&str> = words.iter().copied().filter(|word| !word.contains(':')).collect();
        let number = |at: usize, or: u64| plain.get(at).map_or(or, |n| n.parse().unwrap());
        let percent = |text: &str| text.parse::<u64>().unwrap().try_into().unwrap();
        let intent = match words[1] {
            "install" => Some(Intent::Install),
            "rollback" => Some(Intent::Rollback),
            "hold" => Some(Intent::Hold),
            _ => None,
        };
        let mut terms = trial(number(3, 10), number(4, 0), number(5, 60));
        terms.max_slowdown = said("slow").map(percent);
        terms.max_memory_percent = said("memory").map(percent);
        terms.shadow = said("shadow")
            .and_then(|text| text.split_once(':'))
            .map(|(answers, most)| Shadow { answers: percent(answers), max_disagreement: percent(most) });
        let rollout = number(0, 0);
        let order = intent.map(|intent| self.bundle(number(2, 0)).order(intent, rollout, terms));
        let draft = AssignmentDraft {
            device: self.device.clone(),
            seq: number(0, 0),
            issued: 1_700_000_000_000,
            numbers: self.numbers,
            streams: Vec::from_iter(order),
        };
        document(DocumentKind::Assignment, self.signer.drafted(&draft))
    }

    /// `beacon [fresh | stale]`
    pub(crate) fn beacon(&mut self, fresh: bool) -> Event {
        self.beacons += 1;
        let nonce = fresh.then(|| self.nonce.clone());
        let draft = BeaconDraft { to: None, seq: self.beacons, nonce, numbers: self.numbers };
        document(DocumentKind::Beacon, self.signer.beacon(&draft, self.began + self.mono / 1_000))
    }

    /// `command SEQ [late | stale] JSON`: it counts for half a minute, or did, or answers an earlier hello.
    pub(crate) fn command(&mut self, line: &str) -> Event {
        let (seq, rest) = line.split_once(' ').unwrap();
        let (word, request) = rest.split_at(rest.find('{').unwrap());
        let now = self.began + self.mono / 1_000;
        let late = if word == "late " { 60 } else { 0 };
        let draft = CommandDraft {
            device: self.device.clone(),
            seq: seq.parse().unwrap(),
            issued: (now - late) * 1_000,
            deadline: (now + 30 - late) * 1_000,
            nonce: if word == "stale " { "0000".into() } else { self.nonce.clone() },
            heard: self.greeted * 1_000,
            numbers: self.numbers,
            request: Request::Report {},
            fan_out: None,
        };
        let request = serde_json::from_str(request).unwrap();
        document(DocumentKind::Command, self.signer.command(&draft, request))
    }

    /// `root [stop-rollbacks]`: the next one; what land signs names it from now on.
    pub(crate) fn root(&mut self, edit: impl FnOnce(&mut Root)) -> Event {
        self.root = self.signer.root_after(&self.root, edit);
        self.numbers.root += 1;
        document(DocumentKind::Root, self.root.clone())
    }

    /// `revoke SEVERITY RELEASE...`: all that was revoked by then is left out.
    pub(crate) fn revoke(&mut self, words: &[&str]) -> Event {
        let severity = match words[0] {
            "info" => Severity::Info,
            "no-new" => Severity::NoNew,
            "fallback" => Severity::Fallback,
            _ => Severity::Stop,
        };
        let row = |release: &&str| RevokedBundle {
            bundle: WhichBundle::StatementSha256(self.bundle(release.parse().unwrap()).digest),
            severity,
            reason: "as the table says".into(),
        };
        let bundles = words[1..].iter().map(row).collect();
        self.numbers.revocation += 1;
        let bytes = self.signer.revocation(self.numbers.revocation, |revocation| revocation.bundles = bundles);
        document(DocumentKind::Revocation, bytes)
    }

    pub(crate) fn happen(&mut self, line: &str) -> Vec<Effect> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).map_or(0, |n| n.parse::<u64>().unwrap());
        let refusal = |code| Refusal::new(code, "as the table says");
        let named = words.get(1).and_then(|n| n.parse().ok()).filter(|_| !["assign", "command"].contains(&words[0]));
        let bundle = self.bundle(named.unwrap_or(1));
        let (stream, digest) = (stream(), bundle.digest);
        let event = match words[0] {
            "restart" => {
                let (agent, step) =
                    Self::restore(&self.signer, &self.device, self.limits, self.saved.clone(), &self.documents);
                self.agent = agent;
                self.began += self.mono / 1_000;
                self.mono = 0;
                return self.commit(step);
            }
            // Land answers a hello afresh, unless it is away.
            "connect" if words.get(1).is_none() => {
                let mut effects = self.step(Event::Connected);
                let answer = self.beacon(true);
                effects.extend(self.step(answer));
                return effects;
            }
            "wait" => {
                self.mono += number(1) * 1_000;
                Event::DeadlineReached
            }
            "assign" => self.assign(&words[1..]),
            "connect" => Event::Connected,
            "beacon" => self.beacon(words[1] == "fresh"),
            "root" => self.root(|_| ()),
            "revoke" => self.revoke(&words[1..]),
            "command" => self.command(line.split_once(' ').unwrap().1),
            "restarted" => Event::Restarted { stream, outcome: Ok(()) },
            "unstarted" => Event::Restarted { stream, outcome: Err("no memory".into()) },
            "disconnect" => Event::Disconnected,
            "described" => {
                let found = bundle.found();
                let (envelope, manifest) = (found.envelope.clone(), found.manifest.clone());
                let described = Box::new(Described { envelope, manifest, missing: number(2), room: found.room });
                Event::BundleDescribed { bundle: digest, described }
            }
            "stored" => Event::BundleStored { bundle: digest },
            "examined" => Event::BundleExamined { bundle: digest, found: bundle.found() },
            "forged" => Event::BundleRefused { bundle: digest, refusal: refusal(Code::Sig) },
            "probed" => Event::ProbePassed { bundle: digest, row_us: 1_000 },
            "disagrees" => Event::ProbeFailed { bundle: digest, refusal: refusal(Code::Golden) },
            "served" => Event::Served { stream, bundle: digest, sandbox: Sandbox::default() },
            "fell" => Event::ProcessFell { stream, bundle: digest, why: "its process fell".into() },
            "unloadable" => Event::ServeFailed { stream, bundle: digest, refusal: refusal(Code::Digest) },
            "late" => Event::ServeFailed { stream, bundle: digest, refusal: refusal(Code::Model) },
            // `compared RELEASE ROWS OTHERS`
            "compared" => Event::Compared { bundle: digest, compared: number(2), disagreed: number(3) },
            // `answers RELEASE ANSWERS ERRORS [MICROSECONDS [MIB]]`, of each
            "answers" => Event::Observed {
                stream,
                bundle: digest,
                answers: number(2),
                errors: number(3),
                took_us: number(2) * if words.len() > 4 { number(4) } else { 100 },
                resident: number(5) << 20,
            },
            "stumbled" => Event::Stumbled { bundle: digest },
            "delivered" => Event::VerdictDelivered { seq: number(1) },
            other => panic!("no event is called {other}"),
        };
        self.step(event)
    }

    pub(crate) fn say(&self, effect: &Effect) -> Option<String> {
        let release = |digest: &trust::Digest| self.release(*digest);
        Some(match effect {
            Effect::Fetch { bundle, .. } => format!("fetch {}", release(bundle)),
            Effect::Admit { bundle } => format!("admit {}", release(bundle)),
            Effect::StopFetching { bundle } => format!("leave {}", release(bundle)),
            Effect::Examine { bundle } => format!("examine {}", release(bundle)),
            Effect::Probe { bundle } => format!("probe {}", release(bundle)),
            Effect::Serve { bundle, fallback: None, .. } => format!("serve {}", release(bundle)),
            Effect::Serve { bundle, fallback: Some(f), .. } => format!("serve {} else {}", release(bundle), release(f)),
            Effect::Shadow { bundle, .. } => format!("shadow {}", release(bundle)),
            Effect::StopServing { .. } => "serve nothing".into(),
            Effect::Discard { bundle } => format!("discard {}", release(bundle)),
            Effect::SayHello { .. } => "hello".into(),
            Effect::DeliverVerdict(v) => {
                let outcome = match v.outcome {
                    Outcome::Confirmed => "confirmed",
                    Outcome::Reverted => "reverted",
                    Outcome::Refused => "refused",
                };
                let code = v.code.as_deref().map_or(String::new(), |code| format!(" {code}"));
                format!("verdict {}: {} {outcome}{code}", v.seq, v.release)
            }
            Effect::Restart { .. } => "restart".into(),
            Effect::Judge { stream, labels, .. } => format!("judge {stream} {}", labels.len()),
            Effect::Give { stream, request, count, bytes, by, approved, .. } => {
                format!("give {stream} {request} {count} {bytes} {by} {approved}")
            }
            Effect::SetLog(Log::Configured) => "log as before".into(),
            Effect::SetLog(Log::Level(level)) => format!("log {}", level.as_str()),
            Effect::Measure => "measure".into(),
            Effect::Diagnose(result) => format!("diagnose {}", result.seq),
            Effect::DeliverResult(result) => {
                let outcome = match result.outcome {
                    CommandOutcome::Done => "done",
                    CommandOutcome::Refused => "refused",
                    CommandOutcome::Failed => "failed",
                };
                let why =
                    result.code.as_ref().or(result.detail.as_ref()).map_or(String::new(), |why| format!(" {why}"));
                format!("result {} {outcome}{why}", result.seq)
            }
            Effect::AwaitRoot { version } => format!("await root {version}"),
            Effect::Keep { .. } | Effect::PublishReport(_) => return None,
        })
    }
}

/// Lives `script` and compares what the core asked for.
pub(crate) fn check(script: &[(&str, &str)]) -> Bench {
    live(Bench::new(), script)
}

/// The same of a device that is made already.
pub(crate) fn live(mut bench: Bench, script: &[(&str, &str)]) -> Bench {
    for (at, (event, expected)) in script.iter().enumerate() {
        let effects = bench.happen(event);
        let said: Vec<String> = effects.iter().filter_map(|e| bench.say(e)).collect();
        assert_eq!(said.join(", "), *expected, "line {at}: {event}");
    }
    bench
}

/// `script`, after `before`.
pub(crate) fn then<'a>(before: &[(&'a str, &'a str)], script: &[(&'a str, &'a str)]) -> Bench {
    check(&[before, script].concat())
}

/// Release 1 is confirmed and serves.
pub(crate) const RUNNING_1: &[(&str, &str)] = &[
    ("connect", "await root 2, hello"),
    ("assign 1 install 1", "fetch 1"),
    ("stored 1", "examine 1"),
    ("examined 1", "probe 1"),
    ("probed 1", "serve 1"),
    ("served 1", ""),
    ("answers 1 10 0", "verdict 1: 1 confirmed, serve 1"),
    ("delivered 1", ""),
];

/// Release 2 is on trial before release 1.
pub(crate) const TRYING_2: &[(&str, &str)] = &[
    ("assign 2 install 2", "verdict 1: 1 confirmed, fetch 2"),
    ("stored 2", "examine 2"),
    ("examined 2", "probe 2"),
    ("probed 2", "serve 2 else 1"),
    ("served 2", ""),
];

pub(crate) fn trying_2() -> Vec<(&'static str, &'static str)> {
    [RUNNING_1, TRYING_2].concat()
}
