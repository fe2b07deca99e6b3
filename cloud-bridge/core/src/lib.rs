//! The decisions of land: which device should run what, and how far a rollout may go.
//!
//! One door in, `step(now, event)`; one door out, [`Step::commit`], which hands out the effects only
//! after the records are saved; one `deadline`. There is no IO here, no clock, no async, no key:
//! what devices say has been verified before it becomes an event, what is assigned is signed by the
//! hands, and the documents that people sign are verified by `trust`. The [`audit`] log is beside it:
//! any hand may write in it.

pub mod access;
pub mod audit;
pub mod auditor;
mod bridge;
mod credential;
mod device;
mod documents;
pub mod drift;
mod effect;
mod event;
pub mod evidence;
pub mod judge;
pub mod notice;
pub mod planner;
pub mod policy;
mod rollout;
mod step;
mod target;

pub use bridge::{
    Asked, Bridge, FanOut, FanOutWish, LONGEST_COMMAND, MOST_ASKED, MOST_AT_ONCE, NEED_RATE, Needs, Preview, Said,
    SampleRequest, SampleState, SampleTurn, SampleWish, Stay, Wish, is_label_value, put_back,
};
pub use credential::{Credential, Disbelief, Withdrawn};
pub use device::{Alarm, Desired, Device, Greeted, Heard, Sealed, Status};
pub use documents::{Numbers, StoredDocument};
pub use effect::{AssignmentDraft, BeaconDraft, CommandDraft, Effect};
pub use event::{Event, Invitation, Rejection, Release, RolloutRequest, Targets};
pub use evidence::{Figures, Measured};
pub use judge::{Finding, Judgement};
pub use policy::{Policy, Span, WaveSize};
pub use rollout::{DeviceResult, Member, Phase, Place, Rollout, Standing, Turn};
pub use step::{Answer, Committed, Now, Record, Step, UnixMillis};
pub use target::{FACTS, Target, TargetError};
