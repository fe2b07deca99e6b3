//! The herald: CloudEvents to other programs, signed, and tried again until they have them.
//!
//! Decides how often, how long and with whom. What is told is decided by `bridge_core::notice`; it waits in the database, so
//! that neither a crash here nor one there loses any: an event may come twice, with the same id.

use super::config::Webhook;
use super::store::notices::{Waiting, Wants};
use super::store::{Store, unix_millis};
use crate::fault::Fault;
use crate::keyfile;
use bridge_core::UnixMillis;
use ed25519_dalek::pkcs8::spki::der::zeroize::Zeroizing;
use ring::hmac;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tracing::{debug, warn};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often an event is tried before it is given up: some five hours.
const TRIES: u32 = 16;
/// The longest pause between two tries.
const LONGEST_PAUSE: UnixMillis = 3_600_000;
/// Events that are told before it is looked at what is due.
const AT_ONCE: u32 = 16;
/// The least bytes of a secret.
const LEAST_SECRET: usize = 16;
/// The most characters of what went wrong.
const MAX_WORDS: usize = 200;

/// A webhook, ready to be told.
struct Hook {
    name: String,
    url: String,
    secret: Zeroizing<Vec<u8>>,
    agent: Agent,
}

impl Hook {
    fn open(said: &Webhook) -> anyhow::Result<Self> {
        let fault = |what: &str| Fault::new(format!("webhook `{}`: {what}", said.name));
        if !said.url.starts_with("https://") && !said.url.starts_with("http://") {
            return Err(fault("its `url` is no address").remedy("give https://host/path").into());
        }
        let secret = keyfile::read_secret_text(&said.secret)?;
        let secret = Zeroizing::new(secret.trim().as_bytes().to_vec());
        if secret.len() < LEAST_SECRET {
            let short = fault(&format!("its secret has {} bytes", secret.len()));
            let how = format!("give one of at least {LEAST_SECRET}, such as `openssl rand -hex 32` makes");
            return Err(short.remedy(how).into());
        }
        let roots = match &said.ca {
            None => RootCerts::WebPki,
            Some(path) => {
                let unusable = || fault(&format!("cannot use the authority {}", path.display()));
                let pem = std::fs::read(path).map_err(|e| unusable().because(e))?;
                RootCerts::new_with_certs(&[Certificate::from_pem(&pem).map_err(|e| unusable().because(e))?])
            }
        };
        let tls = TlsConfig::builder().root_certs(roots).build();
        let agent = Agent::config_builder().tls_config(tls).timeout_global(Some(PATIENCE)).max_redirects(0);
        let agent = agent.http_status_as_error(false).build().new_agent();
        Ok(Self { name: said.name.clone(), url: said.url.clone(), secret, agent })
    }

    /// Sends one event; words when it was not taken.
    fn send(&self, waiting: &Waiting) -> Result<(), String> {
        let seconds = unix_millis() / 1_000;
        let sent = self
            .agent
            .post(&self.url)
            .header("content-type", "application/cloudevents+json")
            .header("petrel-signature", signature(&self.secret, seconds, &waiting.body))
            .send(&waiting.body);
        match sent {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it answered {}", answer.status().as_u16())),
            Err(error) => Err(error.to_string().chars().take(MAX_WORDS).collect()),
        }
    }
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 with the secret over the seconds, a dot and the body, so that what is repeated later
/// can be told by its age.
fn signature(secret: &[u8], seconds: u64, body: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), format!("{seconds}.{body}").as_bytes());
    format!("t={seconds},v1={}", hex::encode(tag))
}

/// Tells the webhooks of this bridge.
pub(crate) struct Herald(Vec<Arc<Hook>>);

impl Herald {
    /// Reads their secrets.
    ///
    /// # Errors
    /// When one cannot be read, or is too short to be one.
    pub(crate) fn open(said: &[Webhook]) -> anyhow::Result<Self> {
        Ok(Self(said.iter().map(|webhook| Hook::open(webhook).map(Arc::new)).collect::<Result<_, _>>()?))
    }

    /// Tells what is due, for ever, and each by itself: one that hangs keeps no other waiting.
    pub(crate) async fn run(self, store: Store) {
        if let Err(error) = store.keep_boxes(self.0.iter().map(|hook| hook.name.as_str())).await {
            warn!(error = format!("{error:#}"), "events of webhooks that are gone could not be removed");
        }
        let mut all = JoinSet::new();
        for hook in self.0 {
            all.spawn(tell(hook, store.clone()));
        }
        while all.join_next().await.is_some() {}
    }
}

async fn tell(hook: Arc<Hook>, store: Store) {
    let mut noticed = store.noticed.subscribe();
    loop {
        let wait = match round(&hook, &store).await {
            Ok(next) => next.map(|due| Duration::from_millis(due.saturating_sub(unix_millis()))),
            Err(error) => {
                warn!(hook = hook.name, error = format!("{error:#}"), "a webhook cannot be told");
                Some(PATIENCE)
            }
        };
        let came = match wait {
            Some(wait) => tokio::time::timeout(wait, noticed.changed()).await.unwrap_or(Ok(())),
            None => noticed.changed().await,
        };
        if came.is_err() {
            return;
        }
    }
}

/// Tells what is due; when there is something next.
async fn round(hook: &Arc<Hook>, store: &Store) -> anyhow::Result<Option<UnixMillis>> {
    for waiting in store.notices_due(&hook.name, AT_ONCE).await? {
        let (id, tries, kind) = (waiting.id, waiting.tries + 1, waiting.kind.clone());
        let (sender, name) = (hook.clone(), &hook.name);
        match tokio::task::spawn_blocking(move || sender.send(&waiting)).await? {
            Ok(()) => {
                debug!(hook = name, kind, "told");
                store.told(id).await?;
            }
            Err(error) => {
                let due = (tries < TRIES).then(|| unix_millis() + pause(tries));
                warn!(hook = name, kind, tries, given_up = due.is_none(), error, "not told");
                store.untold(id, due, &error).await?;
            }
        }
    }
    store.next_notice(&hook.name).await
}

/// What follows so many tries, in milliseconds: each twice as long as the one before.
fn pause(tries: u32) -> UnixMillis {
    1_000_u64.saturating_mul(1 << tries.min(20)).min(LONGEST_PAUSE)
}

/// Which events each wants.
pub(crate) fn wants(said: &[Webhook]) -> Vec<Wants> {
    said.iter().map(|w| Wants { hook: w.name.clone(), kinds: w.events.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_openssl() {
        // printf '7.{}' | openssl dgst -sha256 -hmac 'a secret of sixteen'
        let expected = "t=7,v1=f1d73f057321d121bd4694f605f17b1424c5fd5c841a4fe3195dbb521e1cd81e";
        assert_eq!(signature(b"a secret of sixteen", 7, "{}"), expected);
    }

    #[test]
    fn pauses_grow_to_an_hour() {
        assert_eq!([1, 2, 3, 11, 12, u32::MAX].map(pause), [2_000, 4_000, 8_000, 2_048_000, 3_600_000, 3_600_000]);
        // By hand: 2 to 2,048 s, each twice the one before, and four hours.
        let all: u64 = (1..TRIES).map(pause).sum();
        assert_eq!(all, 4_094_000 + 4 * LONGEST_PAUSE);
    }
}
