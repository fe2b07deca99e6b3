//! The device's papers while it runs: which identity is shown, when a newer one is asked for, what is done when
//! none is there or one is refused.
//!
//! Without papers nothing is said to land, and models go on answering.

use crate::config::Config;
use crate::fault::{Fault, told};
use crate::identity::{self, Floor, Identity, Need, Signer, Slots};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, interval};
use trust::{Code, Refusal, Time};

/// How often it is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often land is asked for a newer certificate, while it gives none.
const ASK_EVERY: Duration = Duration::from_secs(3_600);

/// What the driver holds of them.
pub(super) struct Papers {
    slots: Slots,
    ca: Vec<u8>,
    floor: Floor,
    /// The newest first; none when the device was never enrolled or its key is gone.
    whole: Vec<Identity>,
    /// The one that is shown.
    shown: usize,
    /// How often those that were shown were refused, since one was taken.
    pub(super) refused: u32,
    expired: bool,
    asked: Option<Instant>,
    /// Land has not answered yet.
    asking: bool,
    answers: mpsc::UnboundedReceiver<Result<Identity, Fault>>,
    answer: mpsc::UnboundedSender<Result<Identity, Fault>>,
    look: Interval,
}

impl Papers {
    pub(super) fn new(slots: Slots, ca: Vec<u8>, floor: Floor) -> Self {
        let (answer, answers) = mpsc::unbounded_channel();
        let look = interval(LOOK_EVERY);
        let (whole, shown, refused, expired, asked) = (Vec::new(), 0, 0, false, None);
        Self { slots, ca, floor, whole, shown, refused, expired, asked, asking: false, answers, answer, look }
    }

    /// It is not earlier than this.
    pub(super) fn learn(&self, low: Time) {
        self.floor.set(u64::try_from(low.unix()).unwrap_or_default());
    }

    /// Reads what is on the disk.
    ///
    /// # Errors
    /// A refusal when there is nothing that can be shown.
    pub(super) fn read(&mut self) -> Result<(), Refusal> {
        self.shown = 0;
        match self.slots.all() {
            Ok(whole) => {
                self.whole = whole;
                Ok(())
            }
            Err(why) => {
                self.whole.clear();
                let advice = why.advice().unwrap_or_default();
                Err(Refusal::new(Code::Identity, format!("{}: {advice}", told(&why))))
            }
        }
    }

    pub(super) fn identity(&self) -> Option<&Identity> {
        self.whole.get(self.shown)
    }

    pub(super) fn signer(&self) -> Option<Signer> {
        self.identity().map(Identity::signer)
    }

    pub(super) fn tls(&self) -> Option<Result<Arc<rustls::ClientConfig>, Fault>> {
        self.identity().map(|identity| identity.tls(&self.ca, &self.floor))
    }

    /// The broker took what was shown: the other is of no use any more. An old one, because land knows the new key
    /// from now on; a new one, because land does not know it and believes the old key still.
    pub(super) fn taken(&mut self) {
        (self.refused, self.expired) = (0, false);
        let Some(identity) = self.identity().cloned() else { return };
        // Also when there is only a key: what could not be removed is not used again. But one that land is asked about
        // now is needed.
        if !self.asking {
            match self.slots.keep_only(identity.slot) {
                Ok(()) => (self.whole, self.shown) = (vec![identity], 0),
                Err(why) => tracing::warn!("the other certificate stays on the disk: {why}"),
            }
        }
    }

    /// The broker refused what was shown; whether another is there to be shown next.
    pub(super) fn refused(&mut self, expired: bool) -> bool {
        self.refused = self.refused.saturating_add(1);
        self.expired |= expired;
        self.shown = (self.shown + 1) % self.whole.len().max(1);
        self.whole.len() > 1
    }

    /// Waits until something is due: a look at the clock, or land's answer.
    pub(super) async fn due(&mut self) -> Option<Result<Identity, Fault>> {
        tokio::select! {
            Some(answer) = self.answers.recv() => {
                self.asking = false;
                Some(answer)
            }
            _ = self.look.tick() => None,
        }
    }

    /// Asks land for a newer certificate when it is time, on a thread of its own.
    pub(super) fn ask(&mut self, config: &Config, wall: Option<u64>) {
        let (Some(identity), Some(bridge)) = (self.identity().cloned(), config.bridge.clone()) else { return };
        let now = self.floor.seconds().max(wall.unwrap_or_default());
        let need = identity::need(&identity, now, self.expired);
        let early = self.asked.is_some_and(|at| at.elapsed() < ASK_EVERY);
        if need == Need::Nothing || self.whole.len() > 1 || early {
            return;
        }
        tracing::info!(?need, "a newer certificate is asked for");
        (self.asked, self.asking) = (Some(Instant::now()), true);
        let (slots, ca, floor, answer) = (self.slots.clone(), self.ca.clone(), self.floor.clone(), self.answer.clone());
        tokio::task::spawn_blocking(move || {
            // Nobody waits for it any more when the agent ends; the key lies in its slot for the next start.
            let _ = answer.send(identity::ask(&slots, &identity, need, &bridge, &ca, &floor));
        });
    }
}
