//! The decisions of a device: what to fetch, when to believe it, what serves and what is taken back.
//!
//! One door in, `step(now, event)`; one door out, [`Step::commit`], which hands out the effects only
//! after its memory is saved; one `deadline`. There is no IO here, no clock, no async, no randomness,
//! no inference. Bulk bytes and single requests never pass through: the hands stream chunks to disk
//! and count answers, and tell the core what came of it.

mod agent;
mod belief;
mod command;
mod effect;
mod event;
mod ledger;
mod life;
mod limits;
mod pace;
mod pull;
mod samples;
mod shadow;
mod spool;
mod step;
mod streams;
mod windows;
mod word;

pub use agent::Agent;
pub use effect::{Effect, Log};
pub use event::{Described, Event, Found};
pub use ledger::{Cost, Document, Installed, Ledger, Memory, StreamLedger, TrialLedger, Wanted};
pub use life::{Phase, Signed};
pub use limits::{Limits, Metered, most_memory};
pub use pull::{Flow, Late, Wait, Window};
pub use samples::{Samples, Wanted as WantedSample};
pub use spool::{Spool, Spooled, Waiting};
pub use step::{Millis, Now, Step};
pub use streams::MAX_TRIAL_BOOTS;
pub use windows::{OpenWindow, alarms};
