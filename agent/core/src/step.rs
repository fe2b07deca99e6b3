//! The door out: effects leave a step only after the ledger that they rest on is saved.

use crate::{Effect, Ledger};

/// Milliseconds.
pub type Millis = u64;

/// What is known of the time at a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since some moment before the agent started; never goes back.
    pub mono: Millis,
    /// Unix milliseconds, where the board has a clock that was set: many boot in 1970.
    pub wall: Option<Millis>,
}

/// The outcome of one event: perhaps a ledger to save, then effects to carry out.
#[must_use = "the effects of a step leave it only through commit"]
#[derive(Debug)]
pub struct Step {
    ledger: Option<Ledger>,
    effects: Vec<Effect>,
}

impl Step {
    pub(crate) fn new(ledger: Option<Ledger>, effects: Vec<Effect>) -> Self {
        Self { ledger, effects }
    }

    /// Saves the ledger, if it changed, and then hands out the effects in their order.
    ///
    /// # Errors
    /// The error of `save`; the effects are gone then, and the core must be restored from the last
    /// ledger that was saved, which makes them anew.
    pub fn commit<E>(self, save: impl FnOnce(&Ledger) -> Result<(), E>) -> Result<Vec<Effect>, E> {
        if let Some(ledger) = &self.ledger {
            save(ledger)?;
        }
        Ok(self.effects)
    }
}
