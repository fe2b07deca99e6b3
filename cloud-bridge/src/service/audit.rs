//! What must be told afterwards: who did what to whom, and what came of it.
//!
//! Decides the one form in which such an act is handed on. It holds no secret: names and codes only.

/// One act: `actor` (an address, a device or `operator`) did `act` to `subject`; `outcome` is `done` or a code.
pub(crate) fn audit(actor: &str, act: &str, subject: &str, outcome: &str) {
    tracing::info!(target: "audit", actor, act, subject, outcome);
}
