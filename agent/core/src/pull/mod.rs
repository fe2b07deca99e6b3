//! How a device pulls: how much it asks for at a time, what is late, and when land is asked.
//!
//! Decides nothing of what is wanted or believed, and sees no bytes: the hands that fetch, and the model of them in
//! the simulation, tell what they asked for and what came.

mod flow;
mod window;

pub use flow::Flow;
pub use window::{Late, Wait, Window};
