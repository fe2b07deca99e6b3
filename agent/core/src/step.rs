//! The door out: effects leave a step only after the memory that they rest on is saved.

use crate::{Effect, Memory};

/// Milliseconds.
pub type Millis = u64;

/// What is known of the time at a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the core was restored; never goes back.
    pub mono: Millis,
    /// Unix milliseconds, where the board has a clock that was set: many boot in 1970.
    pub wall: Option<Millis>,
}

/// The outcome of one event: perhaps a memory to save, then effects to carry out.
#[must_use = "the effects of a step leave it only through commit"]
#[derive(Debug)]
pub struct Step {
    memory: Option<Memory>,
    effects: Vec<Effect>,
}

impl Step {
    pub(crate) fn new(memory: Option<Memory>, effects: Vec<Effect>) -> Self {
        Self { memory, effects }
    }

    /// Saves the documents and then the ledger, if it changed, and then hands out the effects in their order.
    ///
    /// # Errors
    /// The error of `save`; the effects are gone then, and the core must be restored from the last
    /// ledger that was saved, which makes them anew.
    pub fn commit<E>(self, save: impl FnOnce(&Memory) -> Result<(), E>) -> Result<Vec<Effect>, E> {
        if let Some(memory) = &self.memory {
            save(memory)?;
        }
        Ok(self.effects)
    }
}
