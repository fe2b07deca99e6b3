//! The world in which the cores are proved: a broker, disks, hands and people, all modelled, on a
//! virtual clock and one seeded source of chance; and the keys to sign what tests need.
//!
//! It decides what may go wrong and what must hold all the same. It deliberately does not know how
//! the real hands work: it meets the cores only through `step`, `deadline` and `commit`.

pub mod conformance;
pub mod judged;
pub mod signer;
mod simulation;

pub use simulation::{ByHand, Delivered, Outcome, Violation, deliver, judge, run, run_traced};
