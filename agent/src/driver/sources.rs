//! Where a bundle is fetched from: the sources of the configuration, one after the other.
//!
//! Decides when the next one is tried. What arrives is judged by the keeper, wherever it comes from.

use super::Driver;
use crate::config::Source;
use crate::fault::told;
use crate::keeper::Errand;
use crate::source::{Land, bring};
use protocol::{Fetch, Kind};
use std::collections::BTreeSet;
use tokio::sync::mpsc;
use trust::Digest;

/// Attempts that bring nothing, before another source is tried.
const TRIES: u32 = 3;
/// Where there is no other: some eight minutes, and then anew with the papers of that moment.
const TRIES_ALONE: u32 = 8;

/// Bundles that come over HTTPS.
pub(super) struct Https {
    under_way: BTreeSet<Digest>,
    ends: mpsc::UnboundedReceiver<(Digest, bool)>,
    end: mpsc::UnboundedSender<(Digest, bool)>,
}

impl Default for Https {
    fn default() -> Self {
        let (end, ends) = mpsc::unbounded_channel();
        Self { under_way: BTreeSet::new(), ends, end }
    }
}

impl Https {
    /// What ended, and whether nothing is left to bring.
    pub(super) async fn ended(&mut self) -> (Digest, bool) {
        match self.ends.recv().await {
            Some(ended) => ended,
            // Never: the other end is in here.
            None => std::future::pending().await,
        }
    }
}

impl Driver {
    /// Begins with the first source.
    pub(super) fn fetch(&mut self, bundle: Digest, total_size: u64) {
        let https = self.config.sources[0] == Source::Https;
        self.keeper.ask(Errand::Fetch { bundle, total_size, asks: !https });
        if https {
            self.bring(bundle);
        }
    }

    /// The broker gives nothing of what it is asked for.
    pub(super) fn look_elsewhere(&mut self, bundle: Digest) {
        if self.config.sources.contains(&Source::Https) {
            self.bring(bundle);
        }
    }

    /// Fetches a bundle over HTTPS, unless that is under way. It ends by itself when the bundle is not wanted any more.
    /// Where it cannot even begin, the broker is asked, whatever the sources are.
    fn bring(&mut self, bundle: Digest) {
        let (Some(address), Some(signer)) = (self.config.bridge.clone(), self.papers.signer()) else {
            return self.keeper.ask(Errand::AskBroker(bundle));
        };
        let frame = signer.frame(Kind::Fetch, &Fetch { device: self.config.device.clone(), statement: bundle.0 });
        let (Ok(proof), Some(Ok(tls))) = (frame, self.papers.tls()) else {
            return self.keeper.ask(Errand::AskBroker(bundle));
        };
        if !self.https.under_way.insert(bundle) {
            return;
        }
        tracing::info!(bundle = %bundle.short(), "the bundle is fetched over HTTPS");
        let tries = if self.config.sources.contains(&Source::Mqtt) { TRIES } else { TRIES_ALONE };
        let (counter, end) = (self.keeper.counter(true), self.https.end.clone());
        if let Err(why) = bring(Land { address, tls, bundle, proof }, counter, tries, end) {
            tracing::error!("nothing is fetched over HTTPS: {}", told(&why));
            self.https.under_way.remove(&bundle);
            self.keeper.ask(Errand::AskBroker(bundle));
        }
    }

    /// HTTPS brought all of a bundle, or gave up: then the broker is asked, where it is a source.
    pub(super) fn take_end(&mut self, (bundle, done): (Digest, bool)) {
        self.https.under_way.remove(&bundle);
        if done {
            return;
        }
        match self.config.sources.contains(&Source::Mqtt) {
            true => self.keeper.ask(Errand::AskBroker(bundle)),
            false => self.bring(bundle),
        }
    }
}
