//! What a board is: the firmware profiles, which inherit from each other, and what a board lacks of its profile.
//!
//! Decides how profiles are put together, what they may say, and whether a board is what its profile says. It reads no
//! file and looks at no board: both are given. What the keys under `[agent]` mean is known by the agent alone.

mod layers;
mod profile;
mod target;

pub use layers::{Layer, MAX_PROFILE_BYTES, ProfileError, gather};
pub use profile::{Build, Clock, Cpu, Found, Heat, MAX_CORES, MAX_MIB, Memory, Profile, Storage};
pub use target::Target;
