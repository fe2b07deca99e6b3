//! What a model costs in memory: the most that was allocated while something ran.
//!
//! The only place that knows the counting allocator. It counts the whole process, so nothing else
//! may run meanwhile if the figure is to mean anything.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The grain of budgets, MiB: coarse, so that the same model gives the same budget every time.
const GRAIN_MIB: u32 = 4;

/// Runs `work` and tells the most bytes that were in use meanwhile above those before.
pub(crate) fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let done = work();
    (done, ALLOCATOR.peak_usage().saturating_sub(before))
}

/// A budget in MiB that `bytes` fit into.
pub(crate) fn budget_mib(bytes: usize) -> u32 {
    let grains = bytes.div_ceil((GRAIN_MIB as usize) << 20).max(1);
    u32::try_from(grains).unwrap_or(u32::MAX).saturating_mul(GRAIN_MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_seen_after_it_has_passed() {
        let (length, bytes) = peak(|| vec![1u8; 64 << 20].len());
        assert_eq!(length, 64 << 20);
        // Other tests free memory meanwhile, but never half as much as this.
        assert!(bytes > 32 << 20, "{bytes}");
    }

    #[test]
    fn budgets_are_rounded_up_to_4_mib() {
        let cases = [(0, 4), (1, 4), (4 << 20, 4), ((4 << 20) + 1, 8), (usize::MAX, u32::MAX)];
        assert!(cases.iter().all(|(bytes, mib)| budget_mib(*bytes) == *mib));
    }
}
