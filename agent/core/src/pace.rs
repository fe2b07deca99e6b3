//! How fast things may happen that cost a write: a hostile land could wear out a device's flash.

use crate::step::Millis;

/// So many at once …
const BURST: u32 = 10;
/// … and one more after each such pause.
const PAUSE: Millis = 6_000;

/// A bucket of leave to do something.
#[derive(Debug)]
pub(crate) struct Pace {
    left: u32,
    /// When the last one was added.
    filled: Millis,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { left: BURST, filled: 0 }
    }

    /// Takes leave to do it once at `now`.
    ///
    /// # Errors
    /// When there will be leave.
    pub(crate) fn take(&mut self, now: Millis) -> Result<(), Millis> {
        let added = u32::try_from(now.saturating_sub(self.filled) / PAUSE).unwrap_or(BURST);
        self.left = self.left.saturating_add(added).min(BURST);
        self.filled += PAUSE.saturating_mul(added.into());
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.filled + PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_at_once_then_one_every_six_seconds() {
        let mut pace = Pace::new();
        let taken = (0..100).filter(|_| pace.take(1_000).is_ok()).count();
        assert_eq!(taken, 10);
        assert_eq!(pace.take(5_999), Err(6_000));
        assert_eq!(pace.take(6_000), Ok(()));
        assert_eq!(pace.take(6_000), Err(12_000));
        let in_an_hour = (6_001..3_606_000).step_by(100).filter(|now| pace.take(*now).is_ok()).count();
        assert_eq!(in_an_hour, 599 + 1);
    }
}
