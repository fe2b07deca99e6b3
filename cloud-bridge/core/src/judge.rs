//! What the evidence says of a rollout: each gate with the numbers that led to it.
//!
//! Decides by tests that may be looked at after every message and are wrong with a stated probability over all looks
//! together: an mSPRT over devices (`drift::grew`), a mixture of binomials for shares that have a limit. The devices are
//! the unit where there are enough of them; where there are not, each canary is held against itself before, request by
//! request, and the judgement is called weak. Does not know what follows from a judgement.
//!
//! Sources: Johari, Koomen, Pekelis, Walsh, "Always Valid Inference", Operations Research 70 (2022); Robbins, "Statistical
//! Methods Related to the Law of the Iterated Logarithm", Annals of Mathematical Statistics 41 (1970).

use crate::evidence::Figures;
use crate::rollout::{Member, Rollout, Standing};
use crate::{Device, UnixMillis};
use drift::{CANARY_ALPHA, Devices, exceeds_share, grew, grew_above, grew_from_before, grew_share};
use protocol::DeviceId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Fewer canaries than these are held against themselves.
pub const FEW_CANARIES: u64 = 3;
/// So are canaries against fewer others than these: their spread is not known.
pub const FEW_CONTROLS: u64 = 10;
/// Of a hundred devices so many may be above their memory.
const MEMORY_TOLERATED: f64 = 0.02;
/// A share that grew by less than this is no matter, however small it was.
const LEAST_SHIFT: f64 = 0.02;

/// The most characters of a device's own words.
const MAX_WORDS: usize = 300;

/// What came of a gate, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing is against it.
    Pass,
    /// There is not enough evidence.
    #[serde(rename = "not yet")]
    NotYet,
    /// It is worse than it may be.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Pass => "pass",
            Verdict::NotYet => "not yet",
            Verdict::Fail => "fail",
        })
    }
}

/// One gate, and what led to its verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Its name in the policy.
    pub gate: String,
    /// What came of it.
    pub verdict: Verdict,
    /// The figure of the devices that have the release.
    pub canary: Option<f64>,
    /// The figure that it is held against.
    pub control: Option<f64>,
    /// Devices on both sides.
    pub devices: (u64, u64),
    /// By how much likelier the figures are when it is worse than when it is not: an always-valid likelihood ratio.
    pub evidence: Option<f64>,
    /// The evidence at which it fails.
    pub needed: f64,
    /// The same in words.
    pub why: String,
}

/// What the evidence says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// When it was looked at.
    pub at: UnixMillis,
    /// The worst of the findings.
    pub verdict: Verdict,
    /// There are too few devices to hold them against others.
    pub weak: bool,
    /// Others ran beside them, in this judgement or before it.
    #[serde(default)]
    pub beside: bool,
    /// Each gate.
    pub findings: Vec<Finding>,
    /// Devices by what they count as.
    pub counted: Counted,
}

/// Devices that were assigned the release, by what they count as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// They have it.
    pub confirmed: u64,
    /// They refused it or took it back.
    pub failed: u64,
    /// They were there and said nothing for too long.
    pub unknown: u64,
    /// They were away, and are.
    pub away: u64,
    /// They are on their way to a verdict.
    pub open: u64,
}

impl Judgement {
    /// Why it failed, in one line.
    pub fn reason(&self) -> String {
        let failed = self.findings.iter().filter(|finding| finding.verdict == Verdict::Fail);
        failed.map(|finding| format!("{}: {}", finding.gate, finding.why)).collect::<Vec<_>>().join("; ")
    }
}

/// Looks at all that is known of a rollout.
pub(crate) fn judge(rollout: &Rollout, devices: &BTreeMap<DeviceId, Device>, now: UnixMillis) -> Judgement {
    let deadline = rollout.policy.silence.deadline.0;
    let standings: Vec<(&Member, Standing)> =
        rollout.members.values().map(|m| (m, m.standing(devices.get(&m.device), now, deadline))).collect();
    let count = |standing| standings.iter().filter(|(m, s)| m.is_hit() && *s == standing).count() as u64;
    let counted = Counted {
        confirmed: count(Standing::Confirmed),
        failed: count(Standing::Failed),
        unknown: count(Standing::Unknown),
        away: count(Standing::Away),
        open: count(Standing::Open),
    };
    let evidence = Evidence::of(rollout);
    let (weak, beside, findings) = (evidence.is_weak(), evidence.had_others(), evidence.findings(rollout, counted));
    let findings: Vec<Finding> = findings.into_iter().map(Finding::rounded).collect();
    let verdict = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Pass);
    Judgement { at: now, verdict, weak, beside, findings, counted }
}

/// The members by what they can tell.
struct Evidence<'a> {
    /// Those that have run the release.
    canaries: Vec<&'a Member>,
    /// What they are held against.
    beside: Beside<'a>,
    /// What was found before.
    known: Option<&'a Judgement>,
}

/// What canaries are held against.
enum Beside<'a> {
    /// Those that were not assigned it, in the same hours; none while too few of them said something.
    Others(Vec<&'a Member>),
    /// Nobody was ever held against others: all as they were before.
    Past(Vec<Figures>),
    /// There are too few devices: each canary as it was before.
    Themselves,
    /// Others ran beside them before. Nobody does now, or not enough of them were heard since the wave began: what was found
    /// stays. Figures of other hours say nothing: the day has a rhythm, which a release of half of the fleet is not to be
    /// stopped for.
    Kept,
}

impl<'a> Evidence<'a> {
    fn of(rollout: &'a Rollout) -> Self {
        let canaries: Vec<&Member> = rollout.members.values().filter(|m| m.is_hit()).collect();
        let enough = |devices: usize| devices as u64 >= FEW_CONTROLS;
        let has_past = |m: &&Member| m.day.asked() > 0 || m.old.asked() > 0;
        let waiting = || rollout.members.values().filter(|m| !m.is_hit());
        let everybody = || rollout.members.values().filter(has_past);
        let kept = rollout.judgement.as_ref().is_some_and(|known| known.beside);
        let beside = if (canaries.len() as u64) < FEW_CANARIES {
            Beside::Themselves
        } else if enough(waiting().filter(has_past).count()) {
            let heard: Vec<&Member> = waiting().filter(|m| m.old.asked() > 0).collect();
            if enough(heard.len()) {
                Beside::Others(heard)
            } else if kept {
                Beside::Kept
            } else {
                Beside::Others(Vec::new())
            }
        } else if !enough(everybody().count()) {
            Beside::Themselves
        } else if kept {
            Beside::Kept
        } else {
            Beside::Past(everybody().map(Member::past).collect())
        };
        Self { canaries, beside, known: rollout.judgement.as_ref() }
    }

    fn heard(&self) -> u64 {
        self.canaries.iter().filter(|m| m.new.asked() > 0).count() as u64
    }

    fn had_others(&self) -> bool {
        let had = self.known.is_some_and(|known| known.beside);
        match &self.beside {
            Beside::Others(others) => had || !others.is_empty(),
            Beside::Past(_) | Beside::Themselves | Beside::Kept => had,
        }
    }

    fn is_weak(&self) -> bool {
        matches!(self.beside, Beside::Themselves)
    }

    fn whom(&self) -> &'static str {
        match self.beside {
            Beside::Others(_) | Beside::Kept => "of others",
            Beside::Past(_) | Beside::Themselves => "before it",
        }
    }

    /// What a figure is of the devices that canaries are held against.
    fn control(&self, figure: impl Fn(&Figures) -> Option<f64>) -> Devices {
        match &self.beside {
            Beside::Others(others) => Devices::of(others.iter().filter_map(|m| figure(&m.old))),
            Beside::Past(pasts) => Devices::of(pasts.iter().filter_map(figure)),
            Beside::Themselves | Beside::Kept => Devices::default(),
        }
    }

    /// What was found of a gate while others ran beside the canaries, which is no reason to stop now.
    fn kept(&self, gate: &str) -> Option<Finding> {
        let Beside::Kept = self.beside else { return None };
        let found = self.known.and_then(|known| known.findings.iter().find(|finding| finding.gate == gate));
        let never = || Finding::plain(gate, Verdict::Pass, "nobody runs beside it".into());
        let found = found.cloned().unwrap_or_else(never);
        let verdict = if found.verdict == Verdict::Fail { Verdict::Pass } else { found.verdict };
        Some(Finding { verdict, ..found })
    }

    fn findings(&self, rollout: &Rollout, counted: Counted) -> Vec<Finding> {
        let gates = &rollout.policy.gates;
        let others = [
            gates.errors.is_some(),
            gates.latency.is_some(),
            gates.disagreement.is_some(),
            gates.drift.is_some(),
            gates.memory.is_some(),
        ];
        // Bonferroni: all gates together stop a good release as seldom as one alone. Half of that chance is for failures of
        // installation: each device says that once, where of all else it says more and more.
        let alpha = CANARY_ALPHA / 2.0 / others.iter().filter(|asked| **asked).count().max(1) as f64;
        let silence = rollout.policy.silence.max_unknown;
        let findings = [
            Some(failed(counted, gates.max_failed, &self.canaries)),
            Some(unknown(counted, silence)),
            gates.install_failed.map(|gate| self.install_failed(counted, gate.max, CANARY_ALPHA / 2.0)),
            gates.errors.map(|gate| self.kept("errors").unwrap_or_else(|| self.errors(gate.worse_by, alpha))),
            gates.latency.map(|gate| self.kept("latency").unwrap_or_else(|| self.latency(gate.ratio, alpha))),
            gates.disagreement.and_then(|gate| self.disagreement(gate.max, alpha)),
            gates.drift.and_then(|gate| self.kept("drift").or_else(|| self.drift(gate.by, alpha))),
            gates.memory.and_then(|gate| self.memory(gate.max_of_budget, rollout.ram_mb, alpha)),
            (gates.min_answers > 0).then(|| self.enough(gates.min_answers)),
        ];
        findings.into_iter().flatten().collect()
    }

    /// Answers before which no gate passes.
    fn enough(&self, min: u64) -> Finding {
        let answers = self.canaries.iter().fold(0, |sum: u64, m| sum.saturating_add(m.new.asked()));
        let verdict = if answers < min { Verdict::NotYet } else { Verdict::Pass };
        Finding {
            canary: Some(answers as f64),
            control: Some(min as f64),
            devices: (self.heard(), 0),
            ..Finding::plain("min_answers", verdict, format!("{answers} of at least {min} answers were seen"))
        }
    }

    fn install_failed(&self, counted: Counted, max: f64, alpha: f64) -> Finding {
        let said = counted.confirmed + counted.failed;
        let evidence = exceeds_share(counted.failed, said, max);
        let share = ratio(counted.failed, said);
        let why = format!("{} of {said} devices refused it or took it back, at most {}", counted.failed, percent(max));
        Finding {
            canary: share,
            control: Some(max),
            devices: (said, 0),
            ..Finding::tested("install_failed", evidence, alpha, true, why)
        }
    }

    fn errors(&self, worse_by: f64, alpha: f64) -> Finding {
        let rate = |figures: &Figures| figures.error_rate();
        if self.is_weak() {
            let (new, old) = self.before_and_after();
            let asked = |f: &Figures| (f.errors, f.asked());
            let evidence = grew_share(asked(&new), asked(&old), worse_by);
            return self.compared("errors", (rate(&new), rate(&old)), evidence, alpha, worse_by / 2.0, percent);
        }
        let canary = Devices::of(self.canaries.iter().filter_map(|m| rate(&m.new)));
        let control = self.control(rate);
        let evidence = grew(&canary, &control, 0.0, worse_by);
        let figures = (mean(&canary), mean(&control));
        let finding = self.compared("errors", figures, evidence, alpha, worse_by / 2.0, percent);
        Finding { devices: (canary.count(), control.count()), ..finding }
    }

    fn latency(&self, matters: f64, alpha: f64) -> Finding {
        let change = |now: Option<f64>, before: Option<f64>| Some((now? / before?).ln());
        let canary = Devices::of(self.canaries.iter().filter_map(|m| change(m.new.mean_us(), m.past_mean_us())));
        // By how much others became slower than they were, in the same hours.
        let others = match &self.beside {
            Beside::Others(others) => {
                Devices::of(others.iter().filter_map(|m| change(m.old.mean_us(), m.day.mean_us())))
            }
            Beside::Past(_) | Beside::Themselves | Beside::Kept => Devices::default(),
        };
        let has_others = others.count() >= FEW_CONTROLS;
        let (evidence, control) = match &self.beside {
            _ if has_others => (grew(&canary, &others, 0.0, matters.ln()), others.mean().exp()),
            // A wave has just begun.
            Beside::Others(heard) if heard.is_empty() => (1.0, 1.0),
            _ => (grew_from_before(&canary, 1.0, matters), 1.0),
        };
        let by = (canary.count() > 0).then(|| canary.mean().exp());
        let why = match by {
            None => "no device has answers of both releases yet".to_owned(),
            Some(by) => {
                let devices = canary.count();
                let beside = if has_others { format!(", on others {control:.2}x") } else { String::new() };
                format!(
                    "an answer takes {by:.2}x what it took before on the same {devices} device(s){beside}; {matters:.2}x matters"
                )
            }
        };
        let devices = (canary.count(), if has_others { others.count() } else { canary.count() });
        let enough = by.is_some_and(|by| by / control >= matters.sqrt());
        Finding {
            canary: by,
            control: Some(control),
            devices,
            ..Finding::tested("latency", evidence, alpha, enough, why)
        }
    }

    /// `None` where there was no shadow.
    fn disagreement(&self, max: f64, alpha: f64) -> Option<Finding> {
        let shadows = || self.canaries.iter().filter_map(|m| m.result.as_ref()).filter(|r| r.compared > 0);
        let (compared, disagreed) = shadows().fold((0, 0), |(compared, disagreed): (u64, u64), r| {
            (compared.saturating_add(r.compared), disagreed.saturating_add(r.disagreed))
        });
        let share = ratio(disagreed, compared)?;
        let of_each = Devices::of(shadows().map(|r| r.disagreed as f64 / r.compared as f64));
        let few = of_each.count() < FEW_CANARIES;
        let evidence =
            if few { exceeds_share(disagreed, compared, max) } else { grew_above(&of_each, max, max.max(0.01)) };
        let why = format!("{disagreed} of {compared} answers in the shadow were others, at most {}", percent(max));
        let finding = Finding::tested("disagreement", evidence, alpha, share > max, why);
        Some(Finding { canary: Some(share), control: Some(max), devices: (of_each.count(), 0), ..finding })
    }

    /// The class whose share moved most surely; `None` where answers have no classes.
    fn drift(&self, by: f64, alpha: f64) -> Option<Finding> {
        let others: &[&Member] = if let Beside::Others(others) = &self.beside { others } else { &[] };
        let everybody = self.canaries.iter().flat_map(|m| [&m.new, &m.day, &m.old]);
        let everybody = everybody.chain(others.iter().map(|m| &m.old));
        let classes: BTreeSet<&String> = everybody.flat_map(|figures| figures.classes.keys()).collect();
        if classes.is_empty() {
            return None;
        }
        // Each class may grow or shrink.
        let alpha = alpha / (2 * classes.len()) as f64;
        let findings = classes.into_iter().flat_map(|class| self.class(class, by, alpha));
        let surest = findings.max_by(|a, b| {
            a.verdict.cmp(&b.verdict).then(a.evidence.unwrap_or(0.0).total_cmp(&b.evidence.unwrap_or(0.0)))
        });
        let none = || Finding {
            verdict: Verdict::NotYet,
            why: "no classes were answered by both releases yet".into(),
            ..Finding::tested("drift", 1.0, alpha, false, String::new())
        };
        Some(surest.unwrap_or_else(none))
    }

    /// A class that grew, and the same class as one that shrank.
    fn class(&self, class: &str, by: f64, alpha: f64) -> Vec<Finding> {
        let share = |figures: &Figures| figures.share(class);
        let others = |counts: (u64, u64)| (counts.1 - counts.0, counts.1);
        let (figures, grown, shrunk, devices);
        if self.is_weak() {
            let (new, old) = self.before_and_after();
            let counts = |f: &Figures| (f.classes.get(class).copied().unwrap_or(0), f.classified());
            let (Some(now), Some(before)) = (share(&new), share(&old)) else { return Vec::new() };
            let matters = (before * by).max(LEAST_SHIFT);
            grown = grew_share(counts(&new), counts(&old), matters);
            shrunk = grew_share(others(counts(&new)), others(counts(&old)), matters);
            (figures, devices) = ((now, before), (self.heard(), self.heard()));
        } else {
            let canary = Devices::of(self.canaries.iter().filter_map(|m| share(&m.new)));
            let control = self.control(share);
            let (Some(now), Some(before)) = (mean(&canary), mean(&control)) else { return Vec::new() };
            let matters = (before * by).max(LEAST_SHIFT);
            grown = grew(&canary, &control, 0.0, matters);
            shrunk = grew(&canary.reversed(), &control.reversed(), 0.0, matters);
            (figures, devices) = ((now, before), (canary.count(), control.count()));
        }
        let (now, before) = figures;
        let enough = (before * by).max(LEAST_SHIFT) / 2.0;
        let finding = |evidence, moved: f64| {
            let whom = self.whom();
            let why = format!("{} of the answers are `{class}`, {} {whom}", percent(now), percent(before));
            let finding = Finding::tested("drift", evidence, alpha, moved >= enough, why);
            Finding { canary: Some(now), control: Some(before), devices, ..finding }
        };
        vec![finding(grown, now - before), finding(shrunk, before - now)]
    }

    /// `None` where no device tells it.
    fn memory(&self, max: f64, ram_mb: u64, alpha: f64) -> Option<Finding> {
        let held = self.canaries.iter().map(|m| m.new.memory_kb).filter(|held| *held > 0 && ram_mb > 0);
        let held: Vec<f64> = held.map(|held| held as f64 / (ram_mb * 1_024) as f64).collect();
        let most = held.iter().copied().reduce(f64::max)?;
        let above = held.iter().filter(|held| **held > max).count() as u64;
        let evidence = exceeds_share(above, held.len() as u64, MEMORY_TOLERATED);
        let why = format!(
            "{above} of {} processes held more than {} of their budget, at most {}",
            held.len(),
            percent(max),
            percent(most)
        );
        let finding = Finding::tested("memory", evidence, alpha, true, why);
        Some(Finding { canary: Some(most), control: Some(max), devices: (held.len() as u64, 0), ..finding })
    }

    /// All canaries as one, with the release and before it.
    fn before_and_after(&self) -> (Figures, Figures) {
        let heard = self.canaries.iter().filter(|m| m.new.asked() > 0);
        heard.fold((Figures::default(), Figures::default()), |(new, old), m| (new.with(&m.new), old.with(&m.past())))
    }

    fn compared(
        &self,
        gate: &str,
        (new, old): (Option<f64>, Option<f64>),
        evidence: f64,
        alpha: f64,
        enough: f64,
        shown: fn(f64) -> String,
    ) -> Finding {
        let (is, why) = match (new, old) {
            (Some(new), Some(old)) => {
                let whom = self.whom();
                (new - old >= enough, format!("{} with it, {} {whom}", shown(new), shown(old)))
            }
            (Some(_), None) | (None, _) => (false, "one side was not asked yet".to_owned()),
        };
        let devices = (self.heard(), self.heard());
        Finding { canary: new, control: old, devices, ..Finding::tested(gate, evidence, alpha, is, why) }
    }
}

impl Finding {
    fn plain(gate: &str, verdict: Verdict, why: String) -> Self {
        let gate = gate.to_owned();
        Self { gate, verdict, canary: None, control: None, devices: (0, 0), evidence: None, needed: 1.0, why }
    }

    fn rounded(self) -> Self {
        let [canary, control, evidence] = [self.canary, self.control, self.evidence].map(|figure| figure.map(rounded));
        Self { canary, control, evidence, needed: rounded(self.needed), ..self }
    }

    /// It fails when the evidence is enough and the difference is one that matters.
    fn tested(gate: &str, evidence: f64, alpha: f64, matters: bool, why: String) -> Self {
        let needed = 1.0 / alpha;
        let verdict = if evidence >= needed && matters { Verdict::Fail } else { Verdict::Pass };
        Self { evidence: Some(evidence), needed, ..Self::plain(gate, verdict, why) }
    }
}

/// Six digits say all that a person reads, are the same after they lay on a disk, and are no news when the seventh changes.
fn rounded(figure: f64) -> f64 {
    // What is beyond all doubt stays a number that JSON can write.
    let figure = figure.clamp(-1e12, 1e12);
    let places = 5 - figure.abs().max(1e-12).log10().floor() as i32;
    match places {
        0.. => (figure * 10f64.powi(places)).round() / 10f64.powi(places),
        ..0 => (figure / 10f64.powi(-places)).round() * 10f64.powi(-places),
    }
}

/// The budget of failures: a number of devices.
fn failed(counted: Counted, max: u64, canaries: &[&Member]) -> Finding {
    let first = canaries.iter().filter(|m| m.has_failed()).find_map(|m| m.result.as_ref());
    let said = first.map_or(String::new(), |result| {
        let code = result.code.as_deref().unwrap_or("no code");
        let detail = result.detail.as_deref().unwrap_or_default();
        // Words of a device: cut, and nothing that a terminal would obey.
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        format!("; {code}: {detail}").chars().map(plain).take(MAX_WORDS).collect()
    });
    let verdict = if counted.failed > max { Verdict::Fail } else { Verdict::Pass };
    let why = format!("{} device(s) failed, allowed were {max}{said}", counted.failed);
    let (canary, control) = (Some(counted.failed as f64), Some(max as f64));
    Finding {
        canary,
        control,
        devices: (counted.confirmed + counted.failed, 0),
        ..Finding::plain("max_failed", verdict, why)
    }
}

/// The budget of silence: a share of those that were there.
fn unknown(counted: Counted, max: f64) -> Finding {
    let there = counted.confirmed + counted.failed + counted.unknown + counted.open;
    let share = ratio(counted.unknown, there);
    let verdict = if share.is_some_and(|share| share > max) { Verdict::Fail } else { Verdict::Pass };
    let why = format!(
        "of {} of {there} device(s) that were there nothing is heard, at most {}; {} more were away",
        counted.unknown,
        percent(max),
        counted.away
    );
    Finding { canary: share, control: Some(max), devices: (there, 0), ..Finding::plain("silence", verdict, why) }
}

fn ratio(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

fn mean(devices: &Devices) -> Option<f64> {
    (devices.count() > 0).then(|| devices.mean())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
