//! The doors through which documents come to a device: one for each kind.
//!
//! All is checked before anything is changed, so a refusal leaves the state as it was.

use crate::beacon::verify_beacon;
use crate::chain::{self, MAX_ROOT_STEPS, next_root};
use crate::counters::{Generation, Known, Leave, MAX_ONCE_IDS, is_new};
use crate::dsse::{Envelope, PayloadKind};
use crate::root::Role;
use crate::{
    Accepted, Assignment, Beacon, Breakglass, Clock, Code, Digest, MAX_ROOT_BYTES, Refusal, Revocation, Root, Time,
    Trust, Verified, assignment, breakglass, verify_revocation,
};

impl Trust {
    /// Takes the next root. Even a device whose root has expired does.
    ///
    /// # Errors
    /// What [`next_root`] refuses; `E_LIMIT` after 1,024 roots in one boot.
    pub fn accept_root(&mut self, bytes: &[u8], uptime_ms: u64) -> Result<Accepted<Root>, Refusal> {
        let envelope = Envelope::parse(PayloadKind::Root, bytes, MAX_ROOT_BYTES)?;
        if Digest::of(&envelope.payload) == self.root.digest() {
            return Ok(Accepted::Again(self.root.clone()));
        }
        if self.roots_taken == MAX_ROOT_STEPS {
            return Err(chain::too_many());
        }
        let next = next_root(&self.root, bytes)?;
        let again = next.version <= self.counters.root_version;
        if again {
            self.counters.check_leads_to(&next)?;
        }
        self.roots_taken += 1;
        if next.clock_reset > self.counters.clock_reset {
            self.clock = Clock::new(self.device.built);
            self.counters.clock_reset = next.clock_reset;
            self.counters.time_was_told = false;
        }
        if next.role_epoch(Role::Beacon) > self.root.role_epoch(Role::Beacon) {
            self.clock.doubt();
            self.told = None;
        }
        if next.epoch(Role::Breakglass) > self.counters.breakglass_epoch {
            self.counters.breakglass_epoch = next.epoch(Role::Breakglass);
            self.counters.once_ids.clear();
            self.counters.leaves.clear();
        }
        if !again {
            (self.counters.root_version, self.counters.root_sha256) = (next.version, next.digest());
        }
        self.clock.learn(next.issued, uptime_ms);
        self.counters.time = self.clock.low(uptime_ms);
        self.root = next.clone();
        Ok(Accepted::New(next))
    }

    /// Takes a newer revocation. An expired root does not hinder it: it only takes away.
    ///
    /// # Errors
    /// What [`verify_revocation`] refuses; `E_ROLLBACK_REV` for an older one or one that gives a key or a
    /// floor back; `E_TIME_JUMP`.
    pub fn accept_revocation(&mut self, bytes: &[u8], uptime_ms: u64) -> Result<Accepted<Revocation>, Refusal> {
        let newer = verify_revocation(&self.root, bytes)?;
        let generation = Generation { role_epoch: newer.role_epoch, seq: newer.version };
        let number = (generation, newer.digest());
        if !is_new("revocation", Code::RollbackRev, self.counters.revocation, number)? {
            self.revocation = Some(newer.clone());
            return Ok(Accepted::Again(newer));
        }
        if let Some(last) = self.revocation.as_ref().filter(|last| last.role_epoch == newer.role_epoch) {
            last.check_takes_nothing_back(&newer)?;
        }
        self.check_time("revocation", newer.issued, uptime_ms)?;
        self.counters.revocation = Some(Known { generation, sha256: newer.digest() });
        self.learn(newer.issued, uptime_ms);
        self.revocation = Some(newer.clone());
        Ok(Accepted::New(newer))
    }

    /// Takes a newer assignment for this device. What it asks of a stream is judged with the bundle
    /// ([`Trust::judge`]).
    ///
    /// # Errors
    /// What [`crate::verify_assignment`] refuses, `E_REVOKED_KEY`, `E_REVOKED_DEVICE`, `E_REPLAY`,
    /// `E_EXPIRED`, `E_EXPIRED_ROOT`, `E_ROOT_OLD`, `E_REVOCATION_OLD`, `E_TIME_JUMP`.
    pub fn accept_assignment(&mut self, bytes: &[u8], uptime_ms: u64) -> Result<Accepted<Assignment>, Refusal> {
        let newer = assignment::believe(&self.root, self.dated(), &self.device.id, bytes)?;
        self.check_root_reached()?;
        self.check_root_valid(uptime_ms)?;
        self.check_device()?;
        let generation = Generation { role_epoch: newer.role_epoch, seq: newer.seq };
        let number = (generation, newer.digest());
        let new = is_new("assignment", Code::Replay, self.counters.assignment, number)?;
        self.check_not_expired("assignment", newer.expires, uptime_ms)?;
        if !new {
            return Ok(Accepted::Again(newer));
        }
        self.check_known(newer.root_version, newer.min_revocation, "the director")?;
        self.check_time("assignment", newer.issued, uptime_ms)?;
        self.counters.assignment = Some(Known { generation, sha256: newer.digest() });
        self.learn(newer.issued, uptime_ms);
        Ok(Accepted::New(newer))
    }

    /// Takes a newer beacon. With the nonce of this boot it makes the clock fresh.
    ///
    /// # Errors
    /// A refusal when the form or the signatures are wrong, `E_REVOKED_KEY`, `E_REPLAY`, `E_TIME_JUMP`.
    pub fn accept_beacon(&mut self, bytes: &[u8], uptime_ms: u64) -> Result<Accepted<Beacon>, Refusal> {
        let newer = verify_beacon(&self.root, self.dated(), bytes)?;
        let generation = Generation { role_epoch: newer.role_epoch, seq: newer.seq };
        let number = (generation, newer.digest());
        if !is_new("beacon", Code::Replay, self.counters.beacon, number)? {
            return Ok(Accepted::Again(newer));
        }
        self.check_time("beacon", newer.now, uptime_ms)?;
        self.check_time("beacon", newer.issued, uptime_ms)?;
        self.counters.beacon = Some(Known { generation, sha256: newer.digest() });
        self.learn(newer.now.max(newer.issued), uptime_ms);
        if newer.nonce.is_some() && newer.nonce == self.nonce {
            self.clock.freshen(uptime_ms);
            self.counters.floors_unknown = false;
        }
        self.told = Some((newer.root_version, newer.revocation_version));
        Ok(Accepted::New(newer))
    }

    /// Takes leave to install one release under a floor. Each name of a use is taken once.
    ///
    /// # Errors
    /// A refusal when the form, the addressee or the signatures are wrong, `E_REVOKED_KEY`, `E_REPLAY`,
    /// `E_EXPIRED`, `E_EXPIRED_ROOT`, `E_TIME_JUMP`, `E_LIMIT` when too many uses are remembered.
    pub fn accept_breakglass(&mut self, bytes: &[u8], uptime_ms: u64) -> Result<Verified<Breakglass>, Refusal> {
        let leave = breakglass::believe(&self.root, self.dated(), bytes)?;
        leave.to.check(&self.device.id, &self.device.class)?;
        self.check_root_valid(uptime_ms)?;
        if self.counters.once_ids.contains(&leave.once_id) {
            return Err(Refusal::new(Code::Replay, format!("the breakglass `{}` was used before", leave.once_id)));
        }
        self.check_not_expired("breakglass", leave.expires, uptime_ms)?;
        self.check_time("breakglass", leave.issued, uptime_ms)?;
        if self.counters.once_ids.len() >= MAX_ONCE_IDS {
            let detail =
                format!("{MAX_ONCE_IDS} breakglasses were used: a root with a new epoch of the role must come");
            return Err(Refusal::new(Code::Limit, detail));
        }
        self.counters.once_ids.insert(leave.once_id.clone());
        let granted = Leave { release: leave.release, expires: leave.expires };
        self.counters.leaves.insert(leave.stream.clone(), granted);
        self.learn(leave.issued, uptime_ms);
        Ok(leave)
    }

    /// Refuses a moment that no honest signer can mean.
    fn check_time(&self, what: &str, time: Time, uptime_ms: u64) -> Result<(), Refusal> {
        let days = self.root.policy.max_time_jump_days.get();
        let jump = i64::try_from(days.saturating_mul(24 * 3_600)).unwrap_or(i64::MAX);
        let low = self.clock.low(uptime_ms);
        if time > self.root.expires || time.unix() > low.unix().saturating_add(jump) {
            let detail = format!(
                "the {what} says {time}; it is {low} or later, the root ends at {}, and a step is {days} days at most",
                self.root.expires
            );
            return Err(Refusal::new(Code::TimeJump, detail));
        }
        Ok(())
    }

    fn learn(&mut self, time: Time, uptime_ms: u64) {
        self.clock.learn(time, uptime_ms);
        self.counters.time = self.clock.low(uptime_ms);
        self.counters.time_was_told = true;
    }

    /// Which keys may not sign what was issued when.
    pub(crate) fn dated(&self) -> impl Fn(&str, Time) -> bool {
        |key, issued| self.revocation.as_ref().is_some_and(|r| r.key_revoked(key, Some(issued)))
    }
}
