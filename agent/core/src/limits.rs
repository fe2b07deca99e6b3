//! What a device gives to models, and what its link costs.

use trust::{Code, Refusal};

/// The means of a device, from its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory for all models together, MiB.
    pub models_mb: u64,
    /// Every byte over the link costs money or hours.
    pub metered: Option<Metered>,
}

/// What a metered link may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metered {
    /// Bytes that a bundle may cost at most.
    pub most: u64,
    /// A dearer one is refused; otherwise it waits until it comes from somewhere else.
    pub refuses: bool,
}

/// Memory that a process may take besides what its bundle promises twice over: the promise was measured on another
/// machine, with another allocator, and with as many rows at a time as its golden vectors have.
const HEADROOM_BYTES: u64 = 64 << 20;

/// The bytes that the process of a model may take whose manifest promises to do with `ram_mb`.
pub fn most_memory(ram_mb: u64) -> u64 {
    ram_mb.saturating_mul(2 << 20).saturating_add(HEADROOM_BYTES)
}

impl Limits {
    /// Why `missing` bytes do not come over this link.
    pub(crate) fn too_dear(&self, missing: u64) -> Option<Refusal> {
        let most = self.metered?.most;
        let detail = format!("{missing} bytes are to come over a metered link, which takes {most} for a bundle");
        (missing > most).then(|| Refusal::new(Code::Link, detail))
    }

    /// Whether what is too dear is refused.
    pub(crate) fn refuses(&self) -> bool {
        self.metered.is_some_and(|metered| metered.refuses)
    }
}
