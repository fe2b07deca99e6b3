//! Land's files over HTTPS: ranges of what the statement names, to a device that should run the bundle.
//!
//! Decides when it is tried again. Whether HTTPS is a source, and before or after the broker, the configuration says.

use super::{Here, Source, pour};
use crate::config::Address;
use crate::identity;
use crate::keeper::Counter;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::{CONTENT_PATH, FETCH_SCHEME};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use trust::Digest;

const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// One bundle at land.
#[derive(Debug, Clone)]
pub(crate) struct Land {
    /// Where land is.
    pub(crate) address: Address,
    /// How it is known.
    pub(crate) tls: Arc<rustls::ClientConfig>,
    /// The bundle.
    pub(crate) bundle: Digest,
    /// The frame that proves who asks.
    pub(crate) proof: Vec<u8>,
}

impl Source for Land {
    fn read(&mut self, file: &str, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let path = format!("{CONTENT_PATH}/{}/{file}", self.bundle);
        let authorization = format!("{FETCH_SCHEME} {}", URL_SAFE_NO_PAD.encode(&self.proof));
        let headers = [
            ("Authorization", authorization),
            ("Range", format!("bytes={offset}-{}", offset + length.saturating_sub(1))),
        ];
        identity::get(&self.address, &path, self.tls.clone(), &headers, length)
    }
}

/// Brings a bundle from land on a thread of its own, as long as it is wanted. `tries` attempts that bring nothing end it, since
/// its proof may have grown old; that it ended is said with the bundle and whether it is whole or not wanted any more.
///
/// # Errors
/// When the system gives no thread.
pub(crate) fn bring(
    mut land: Land,
    counter: Counter,
    tries: u32,
    ended: UnboundedSender<(Digest, bool)>,
) -> io::Result<()> {
    let work = move || {
        let (mut failures, mut pause) = (0, FIRST_PAUSE);
        let done = loop {
            let mut brought = 0;
            let poured = pour(&mut Here(&counter, land.bundle), &mut land, |bytes| brought = bytes);
            let Err(why) = poured else { break true };
            if brought > 0 {
                (failures, pause) = (0, FIRST_PAUSE);
            }
            failures += 1;
            tracing::warn!(bundle = %land.bundle.short(), bytes = brought, "the bundle does not come over HTTPS: {why}");
            if failures >= tries {
                break false;
            }
            thread::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0));
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        // The driver may be gone already.
        let _ = ended.send((land.bundle, done));
    };
    let span = tracing::Span::current();
    thread::Builder::new().name("petrel-https".into()).spawn(move || span.in_scope(work)).map(drop)
}
