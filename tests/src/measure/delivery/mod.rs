//! What it costs to bring bundles to devices.

mod crowd;
mod memory;
mod rough;
mod speed;
mod web;

use crate::Figure;

/// The figures by name.
pub(crate) const FIGURES: &[(&str, Figure)] = &[
    ("speed", speed::measure),
    ("memory", memory::measure),
    ("crowd", crowd::measure),
    ("kills", rough::kills),
    ("update", rough::update),
    ("forgotten", rough::forgotten),
];
