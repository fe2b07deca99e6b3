//! `petrel demo`: the whole loop on one machine, with real processes and a real model.
//!
//! Decides what is shown and in which order; everything shown is done by the same commands and the
//! same binaries that people use. A good release goes to a canary and then to all; a bad one is
//! caught by the canary's trial and taken back, while the old release goes on answering; and the light changes on two devices. With `--attack` the broker and
//! then the whole bridge are in hostile hands.

mod attack;
mod fleet;
mod measure;
mod model;
mod process;
mod story;
mod traffic;
mod weather;

pub(crate) use story::Args;
