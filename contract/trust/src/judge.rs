//! Whether a bundle may be installed: every rule that this crate can know, each with its outcome.
//!
//! All rules are asked, also after one refused, so that a person sees the whole picture
//! (`petrel verify --explain`). What needs hands (the golden vectors, the engine) is not here.

use crate::rules::{Judgement, Rule};
use crate::{
    Code, Digest, Intent, Manifest, Refusal, Resource, Severity, Statement, StreamAssignment, Trust, Verified,
};

/// What a bundle would run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// `aarch64`, `x86_64`, …
    pub arch: String,
    /// The class of the board; empty when it has none.
    pub class: String,
    /// Memory, MiB.
    pub ram_mb: u64,
    /// The part of it that is for models, MiB.
    pub models_mb: u64,
    /// What the models take of that which stay loaded, MiB.
    pub in_use_mb: u64,
    /// The agent's version.
    pub agent: String,
}

/// A bundle that would be installed, and what is known around it. What is `None` leaves its rules
/// unknown, never passed.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// `bundle.dsse.json`.
    pub envelope: &'a [u8],
    /// `manifest.json`.
    pub manifest: &'a [u8],
    /// What the accepted assignment says of its stream; `None` when a person brought the bundle.
    pub order: Option<&'a StreamAssignment>,
    /// The release that is active now.
    pub active: Option<u64>,
    /// The files as they lie there.
    pub files: Option<&'a [Resource]>,
    /// The board.
    pub board: Option<&'a Board>,
    /// Free bytes on disk.
    pub free_disk: Option<u64>,
}

impl Trust {
    /// Asks every rule of an installation.
    pub fn judge(&self, offer: &Offer<'_>, uptime_ms: u64) -> Judgement {
        let mut judgement = Judgement { findings: Vec::new(), bundle: None };
        judgement.note(Rule::RootValid, self.check_root_valid(uptime_ms));
        judgement.note(Rule::UpToDate, self.check_up_to_date());
        judgement.note(Rule::Fresh, self.check_fresh(uptime_ms));
        judgement.note(Rule::DeviceInFleet, self.check_device());
        let statement = self.verify_statement(offer.envelope);
        judgement.note(Rule::Signatures, statement.as_ref().map(drop).map_err(Clone::clone));
        const UNSIGNED: &str = "nothing that is signed can be read";
        let manifest = statement.as_ref().ok().map(|s| self.verify_manifest(s, offer.manifest));
        judgement
            .ask(Rule::ManifestInScope, manifest.as_ref(), UNSIGNED, |m| m.as_ref().map(drop).map_err(Clone::clone));
        let bundle = statement.ok().zip(manifest.and_then(Result::ok));
        let known = bundle.as_ref();
        judgement.ask(Rule::NotRevoked, known, UNSIGNED, |(s, m)| {
            self.check_not_revoked(s.digest(), &m.stream, m.release.get())
        });
        judgement.ask(Rule::Assigned, known, UNSIGNED, |(s, m)| self.check_assigned(offer.order, s, m));
        judgement.ask(Rule::InTime, known, UNSIGNED, |(_, m)| {
            m.expires.map_or(Ok(()), |expires| self.check_not_expired("bundle", expires, uptime_ms))?;
            self.check_in_time(offer.order, uptime_ms)
        });
        judgement.ask(Rule::RollbackDeclared, known, UNSIGNED, |(_, m)| {
            self.check_rollback(offer.order, offer.active, (&m.stream, m.release.get()), uptime_ms)
        });
        judgement
            .ask(Rule::AboveFloor, known, UNSIGNED, |(_, m)| self.check_floor(&m.stream, m.release.get(), uptime_ms));
        judgement.ask(Rule::RootForBundle, known, UNSIGNED, |(_, m)| self.check_root_for(m));
        let fit = known.zip(offer.board);
        judgement.ask(Rule::Hardware, fit, "the board is not known", |((_, m), board)| board.check_fits(m));
        judgement.ask(Rule::Agent, fit, "the agent is not known", |((_, m), board)| board.check_agent(m));
        let room = known.zip(offer.free_disk);
        judgement.ask(Rule::Disk, room, "the room on the disk is not known", |((s, m), free)| check_disk(s, m, free));
        let files = known.zip(offer.files);
        judgement.ask(Rule::Files, files, "the files are not known", |((s, _), found)| s.check_files(found));
        judgement.bundle = bundle;
        judgement
    }

    /// Asks what can be asked of an order before a byte of its bundle is fetched.
    ///
    /// # Errors
    /// The first refusal.
    pub fn judge_order(&self, order: &StreamAssignment, active: Option<u64>, uptime_ms: u64) -> Result<(), Refusal> {
        let release = order.release.get();
        self.check_root_valid(uptime_ms)?;
        self.check_up_to_date()?;
        self.check_fresh(uptime_ms)?;
        self.check_device()?;
        self.check_not_revoked(order.statement_sha256, &order.stream, release)?;
        self.check_in_time(Some(order), uptime_ms)?;
        self.check_rollback(Some(order), active, (&order.stream, release), uptime_ms)?;
        self.check_floor(&order.stream, release, uptime_ms)
    }

    fn check_up_to_date(&self) -> Result<(), Refusal> {
        if self.counters.floors_unknown {
            return Err(Refusal::new(
                Code::Stale,
                "this device lost its memory: the bridge must answer before it installs",
            ));
        }
        if self.revocation_is_lost() {
            return Err(Refusal::new(Code::RevocationOld, "the revocation that was known is not at hand"));
        }
        self.check_root_reached()?;
        self.told.map_or(Ok(()), |(root, revocation)| self.check_known(root, revocation, "the beacon"))
    }

    fn check_fresh(&self, uptime_ms: u64) -> Result<(), Refusal> {
        if self.root.policy.require_fresh_install && !self.clock.fresh(uptime_ms) {
            return Err(Refusal::new(Code::Stale, "this fleet installs only what the bridge vouched for in this boot"));
        }
        Ok(())
    }

    fn check_not_revoked(&self, bundle: Digest, stream: &str, release: u64) -> Result<(), Refusal> {
        let word = |r: &Verified<crate::Revocation>| r.severity(bundle, stream, release);
        match self.revocation.as_ref().and_then(word) {
            None | Some(Severity::Info) => Ok(()),
            Some(Severity::NoNew | Severity::Fallback | Severity::Stop) => {
                let detail = format!("release {release} of {stream} was taken away");
                Err(Refusal::new(Code::RevokedBundle, detail))
            }
        }
    }

    fn check_assigned(
        &self,
        order: Option<&StreamAssignment>,
        statement: &Verified<Statement>,
        manifest: &Manifest,
    ) -> Result<(), Refusal> {
        let Some(order) = order else {
            return match self.root.policy.sideload {
                true => Ok(()),
                false => Err(Refusal::new(Code::Policy, "this fleet installs nothing without an assignment")),
            };
        };
        let fault = |detail: String| Err(Refusal::new(Code::Mismatch, detail));
        if statement.digest() != order.statement_sha256 {
            return fault(format!(
                "assigned was bundle {}, this is {}",
                order.statement_sha256.short(),
                statement.digest().short()
            ));
        }
        if (manifest.stream.as_str(), manifest.release) != (order.stream.as_str(), order.release) {
            let (stream, release) = (&manifest.stream, manifest.release);
            return fault(format!(
                "assigned was {} release {}, this is {stream} release {release}",
                order.stream, order.release
            ));
        }
        if statement.total_size() != order.total_size.get() {
            return fault(format!("assigned were {} bytes, signed are {}", order.total_size, statement.total_size()));
        }
        Ok(())
    }

    fn check_in_time(&self, order: Option<&StreamAssignment>, uptime_ms: u64) -> Result<(), Refusal> {
        if let Some(deadline) = order.and_then(|o| o.deadline) {
            self.check_not_expired("deadline of the assignment", deadline, uptime_ms)?;
        }
        match order.and_then(|o| o.not_before) {
            Some(start) if self.clock.low(uptime_ms) < start => {
                Err(Refusal::new(Code::Early, format!("the assignment begins at {start}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_rollback(
        &self,
        order: Option<&StreamAssignment>,
        active: Option<u64>,
        (stream, release): (&str, u64),
        uptime_ms: u64,
    ) -> Result<(), Refusal> {
        let from = order.and_then(|o| o.from_release).map(|from| from.get());
        if let (Some(active), Some(from)) = (active, from)
            && active != from
        {
            let detail = format!("the assignment leaves release {from}, active is {active}");
            return Err(Refusal::new(Code::Mismatch, detail));
        }
        let Some(active) = active.filter(|active| release < *active) else { return Ok(()) };
        if self.has_leave(stream, release, uptime_ms) {
            return Ok(());
        }
        if order.is_none_or(|o| o.intent != Intent::Rollback) {
            let detail = format!("release {release} is older than {active} and no rollback was declared");
            return Err(Refusal::new(Code::UndeclaredRollback, detail));
        }
        if !self.root.policy.director_may_rollback {
            return Err(Refusal::new(Code::Policy, "in this fleet a rollback needs a breakglass"));
        }
        Ok(())
    }

    fn check_floor(&self, stream: &str, release: u64, uptime_ms: u64) -> Result<(), Refusal> {
        let floor = self.floor(stream);
        if release < floor && !self.has_leave(stream, release, uptime_ms) {
            return Err(Refusal::new(Code::Floor, format!("release {release} is below the floor {floor}")));
        }
        Ok(())
    }

    /// Whether a breakglass that was taken lets this release under the floor.
    fn has_leave(&self, stream: &str, release: u64, uptime_ms: u64) -> bool {
        let now = self.clock.low(uptime_ms);
        self.counters.leaves.get(stream).is_some_and(|leave| leave.release.get() == release && now <= leave.expires)
    }

    fn check_root_for(&self, manifest: &Manifest) -> Result<(), Refusal> {
        match manifest.min_root_version {
            Some(least) if least > self.root.version => {
                let detail = format!("the bundle needs root {least}, this device has {}", self.root.version);
                Err(Refusal::new(Code::RootOld, detail))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Board {
    fn check_fits(&self, manifest: &Manifest) -> Result<(), Refusal> {
        let fits = |h: &crate::Hardware| {
            h.arch == self.arch
                && h.class.as_ref().is_none_or(|class| *class == self.class)
                && h.min_ram_mb.get() <= self.ram_mb
        };
        if !manifest.hardware.is_empty() && !manifest.hardware.iter().any(fits) {
            let detail =
                format!("it does not run on {} `{}` with {} MiB of memory", self.arch, self.class, self.ram_mb);
            return Err(Refusal::new(Code::Hardware, detail));
        }
        let needed = manifest.resources_budget.ram_mb.get();
        let (models, in_use) = (self.models_mb, self.in_use_mb);
        if needed.saturating_add(in_use) > models {
            let detail = format!("it needs {needed} MiB of memory; of {models} for models {in_use} are in use");
            return Err(Refusal::new(Code::Hardware, detail));
        }
        Ok(())
    }

    fn check_agent(&self, manifest: &Manifest) -> Result<(), Refusal> {
        match (version(&manifest.min_agent), version(&self.agent)) {
            (Some(least), Some(agent)) if agent >= least => Ok(()),
            _ => {
                let detail = format!("it needs agent {}, this is {}", manifest.min_agent, self.agent);
                Err(Refusal::new(Code::AgentOld, detail))
            }
        }
    }
}

/// Room for the larger of what was signed and what the manifest asks for.
fn check_disk(statement: &Statement, manifest: &Manifest, free: u64) -> Result<(), Refusal> {
    let needed = statement.total_size().max(manifest.resources_budget.disk_bytes.get());
    if needed > free {
        return Err(Refusal::new(Code::Disk, format!("it needs {needed} bytes, {free} are free")));
    }
    Ok(())
}

/// `major.minor.patch`; what follows a `-` or `+` does not count.
fn version(text: &str) -> Option<[u64; 3]> {
    let core = text.split(['-', '+']).next()?;
    let numbers: Vec<u64> = core.split('.').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}
