//! The life of a release on its way to serve: a phase for each stream, and what each event makes of it.
//!
//! A phase is kept in memory only. What must outlive a power cut (the trial, the verdict) is in the
//! ledger, and a restart finds its way back from there: a bundle that is on disk is stored again at
//! once, and checked again before it is believed.

use crate::step::Millis;
use crate::{Described, Event, Found, Installed};
use protocol::ShadowReport;
use trust::{Code, Digest, Manifest, Refusal, Statement, Verified};

/// The first pause after an operating failure; it doubles.
const FIRST_PAUSE: Millis = 5_000;
/// The longest pause after an operating failure.
const LONGEST_PAUSE: Millis = 300_000;

/// Where a stream is on the way to what land wants.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Phase {
    /// Nothing is under way.
    #[default]
    Settled,
    /// What describes it arrives: whether the board can have it is not known yet.
    Admitting {
        /// The bundle.
        target: Installed,
        /// Operating failures so far.
        failures: u32,
    },
    /// It fits, and the link is too dear for it: it comes when somebody brings it, or over another link.
    Deferred {
        /// The bundle.
        target: Installed,
        /// How dear it is.
        refusal: Refusal,
    },
    /// Chunks arrive.
    Fetching {
        /// The bundle.
        target: Installed,
        /// Operating failures so far.
        failures: u32,
    },
    /// An operating failure; tried again at `until`.
    Pausing {
        /// The bundle.
        target: Installed,
        /// Operating failures so far.
        failures: u32,
        /// When to go on.
        until: Millis,
    },
    /// Something keeps the release from being installed, and may pass: a newer document, or at `until` time.
    Held {
        /// The bundle.
        target: Installed,
        /// What it is.
        refusal: Refusal,
        /// When to ask again without any news.
        until: Option<Millis>,
    },
    /// Every byte on the disk is read.
    Verifying {
        /// The bundle.
        target: Installed,
        /// Operating failures so far.
        failures: u32,
    },
    /// The golden vectors run.
    Probing {
        /// The bundle.
        target: Installed,
        /// Operating failures so far.
        failures: u32,
        /// What was signed, and by whom.
        signed: Box<Signed>,
    },
    /// It is asked what the release before answers, and nobody hears it.
    Shadowing {
        /// The bundle.
        target: Installed,
        /// What was signed, and by whom.
        signed: Box<Signed>,
        /// Microseconds that a row took when it was probed.
        row_us: u64,
        /// What was compared so far.
        seen: ShadowReport,
        /// When that decides.
        until: Millis,
    },
    /// The ledger says `trial`; the hands load it.
    Starting {
        /// The bundle.
        target: Installed,
    },
    /// It serves and is counted.
    OnTrial {
        /// The bundle.
        target: Installed,
        /// Answers so far.
        answers: u64,
        /// Requests that it could not answer.
        errors: u64,
        /// Microseconds that the answers took together.
        took_us: u64,
        /// The most bytes of memory that its process was seen to hold.
        resident: u64,
        /// When what was seen decides.
        until: Millis,
    },
}

/// A bundle that was judged fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Signed {
    /// What its publishers signed.
    pub statement: Verified<Statement>,
    /// What its manifest promises.
    pub manifest: Verified<Manifest>,
}

/// What an event makes of a phase.
#[derive(Debug, PartialEq)]
pub(crate) enum Turn {
    /// Nothing: the event is about another bundle, or late.
    Stay,
    /// What it asks for is known.
    Described(Box<Described>),
    /// All is on disk.
    Stored,
    /// It was read.
    Examined(Box<Found>),
    /// It runs here, and a row takes so many microseconds.
    Passed(Box<Signed>, u64),
    /// It serves.
    Began,
    /// It was compared; the shadow's terms decide.
    Compared,
    /// It was counted; the trial's terms decide.
    Counted,
    /// It will not do.
    Refused(Refusal),
    /// An operating failure.
    Failed,
}

impl Phase {
    /// The bundle under way.
    pub fn target(&self) -> Option<Installed> {
        match self {
            Phase::Settled => None,
            Phase::Admitting { target, .. }
            | Phase::Deferred { target, .. }
            | Phase::Fetching { target, .. }
            | Phase::Pausing { target, .. }
            | Phase::Held { target, .. }
            | Phase::Verifying { target, .. }
            | Phase::Probing { target, .. }
            | Phase::Shadowing { target, .. }
            | Phase::Starting { target }
            | Phase::OnTrial { target, .. } => Some(*target),
        }
    }

    /// Whether the release under way is the one that answers.
    pub(crate) fn serves(&self) -> bool {
        match self {
            Phase::Starting { .. } | Phase::OnTrial { .. } => true,
            Phase::Settled
            | Phase::Admitting { .. }
            | Phase::Deferred { .. }
            | Phase::Fetching { .. }
            | Phase::Pausing { .. }
            | Phase::Held { .. }
            | Phase::Verifying { .. }
            | Phase::Probing { .. }
            | Phase::Shadowing { .. } => false,
        }
    }

    /// What keeps the release from being installed now.
    pub fn held_by(&self) -> Option<&Refusal> {
        match self {
            Phase::Held { refusal, .. } | Phase::Deferred { refusal, .. } => Some(refusal),
            Phase::Settled
            | Phase::Admitting { .. }
            | Phase::Fetching { .. }
            | Phase::Pausing { .. }
            | Phase::Verifying { .. }
            | Phase::Probing { .. }
            | Phase::Shadowing { .. }
            | Phase::Starting { .. }
            | Phase::OnTrial { .. } => None,
        }
    }

    /// The phase in a word, for logs and status.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Settled => "settled",
            Phase::Admitting { .. } => "admitting",
            Phase::Deferred { .. } => "deferred",
            Phase::Fetching { .. } => "fetching",
            Phase::Pausing { .. } => "pausing",
            Phase::Held { .. } => "held",
            Phase::Verifying { .. } => "verifying",
            Phase::Probing { .. } => "probing",
            Phase::Shadowing { .. } => "in the shadow",
            Phase::Starting { .. } => "starting",
            Phase::OnTrial { .. } => "on trial",
        }
    }

    /// When something must happen without an event.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        match self {
            Phase::Pausing { until, .. } | Phase::Shadowing { until, .. } | Phase::OnTrial { until, .. } => {
                Some(*until)
            }
            Phase::Held { until, .. } => *until,
            Phase::Settled
            | Phase::Admitting { .. }
            | Phase::Deferred { .. }
            | Phase::Fetching { .. }
            | Phase::Verifying { .. }
            | Phase::Probing { .. }
            | Phase::Starting { .. } => None,
        }
    }

    /// The pause after an operating failure at `mono`.
    pub(crate) fn pause(&self, mono: Millis) -> Phase {
        let (target, failures) = match self {
            Phase::Admitting { target, failures }
            | Phase::Fetching { target, failures }
            | Phase::Verifying { target, failures }
            | Phase::Probing { target, failures, .. }
            | Phase::Pausing { target, failures, .. } => (*target, *failures),
            Phase::Deferred { target, .. }
            | Phase::Held { target, .. }
            | Phase::Shadowing { target, .. }
            | Phase::Starting { target }
            | Phase::OnTrial { target, .. } => (*target, 0),
            Phase::Settled => return Phase::Settled,
        };
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
        Phase::Pausing { target, failures: failures + 1, until: mono + pause }
    }

    /// What `event` makes of this phase. Total: each phase names the events that move it, and says
    /// `Stay` to the rest because they are late news of something given up.
    pub(crate) fn turn(&mut self, event: Event) -> Turn {
        let about = |target: &Installed, bundle: &Digest| target.bundle == *bundle;
        match (self, event) {
            (Phase::Admitting { target, .. }, Event::BundleDescribed { bundle, described })
                if about(target, &bundle) =>
            {
                Turn::Described(described)
            }
            (
                Phase::Admitting { target, .. } | Phase::Deferred { target, .. } | Phase::Fetching { target, .. },
                Event::BundleStored { bundle },
            ) if about(target, &bundle) => Turn::Stored,
            (Phase::Verifying { target, .. }, Event::BundleExamined { bundle, found }) if about(target, &bundle) => {
                Turn::Examined(found)
            }
            (Phase::Probing { target, signed, .. }, Event::ProbePassed { bundle, row_us })
                if about(target, &bundle) =>
            {
                Turn::Passed(signed.clone(), row_us)
            }
            (
                Phase::Admitting { target, .. }
                | Phase::Deferred { target, .. }
                | Phase::Fetching { target, .. }
                | Phase::Verifying { target, .. },
                Event::BundleRefused { bundle, refusal },
            )
            | (Phase::Probing { target, .. }, Event::ProbeFailed { bundle, refusal })
            | (
                Phase::Shadowing { target, .. } | Phase::Starting { target } | Phase::OnTrial { target, .. },
                Event::ServeFailed { bundle, refusal, .. },
            ) if about(target, &bundle) => Turn::Refused(refusal),
            (Phase::Shadowing { target, .. }, Event::ProcessFell { bundle, why, .. }) if about(target, &bundle) => {
                Turn::Refused(Refusal::new(Code::Probation, format!("in the shadow of what answers, {why}")))
            }
            (Phase::Shadowing { target, seen, .. }, Event::Compared { bundle, compared, disagreed })
                if about(target, &bundle) =>
            {
                seen.compared = seen.compared.saturating_add(compared);
                seen.disagreed = seen.disagreed.saturating_add(disagreed);
                Turn::Compared
            }
            (Phase::Starting { target } | Phase::OnTrial { target, .. }, Event::ProcessFell { bundle, why, .. })
                if about(target, &bundle) =>
            {
                Turn::Refused(Refusal::new(Code::Probation, format!("on trial, {why}")))
            }
            (Phase::Starting { target }, Event::Served { bundle, .. }) if about(target, &bundle) => Turn::Began,
            (
                Phase::OnTrial { target, answers, errors, took_us, resident, .. },
                Event::Observed { bundle, answers: more, errors: worse, took_us: longer, resident: now, .. },
            ) if about(target, &bundle) => {
                *answers = answers.saturating_add(more);
                *errors = errors.saturating_add(worse);
                *took_us = took_us.saturating_add(longer);
                *resident = now.max(*resident);
                Turn::Counted
            }
            (
                Phase::Admitting { target, .. }
                | Phase::Deferred { target, .. }
                | Phase::Fetching { target, .. }
                | Phase::Verifying { target, .. }
                | Phase::Probing { target, .. },
                Event::Stumbled { bundle },
            ) if about(target, &bundle) => Turn::Failed,
            (
                Phase::Settled
                | Phase::Admitting { .. }
                | Phase::Deferred { .. }
                | Phase::Fetching { .. }
                | Phase::Pausing { .. }
                | Phase::Held { .. }
                | Phase::Verifying { .. }
                | Phase::Probing { .. }
                | Phase::Shadowing { .. }
                | Phase::Starting { .. }
                | Phase::OnTrial { .. },
                Event::Connected
                | Event::Disconnected
                | Event::DocumentArrived { .. }
                | Event::DocumentRefused(_)
                | Event::BundleDescribed { .. }
                | Event::BundleStored { .. }
                | Event::BundleExamined { .. }
                | Event::BundleRefused { .. }
                | Event::ProbePassed { .. }
                | Event::ProbeFailed { .. }
                | Event::Served { .. }
                | Event::ProcessFell { .. }
                | Event::ServeFailed { .. }
                | Event::Observed { .. }
                | Event::Compared { .. }
                | Event::Stumbled { .. }
                | Event::VerdictDelivered { .. }
                | Event::Restarted { .. }
                | Event::DeadlineReached,
            ) => Turn::Stay,
        }
    }
}
