//! The caretaker: every hour, what is older than it is kept becomes less, or goes; every day, people are warned of what ends.
//!
//! Decides how long things are kept. How they go is the store's, and which bundles may go the core's.

use super::driver::{DONE, Driver};
use super::expiry::{self, Ends};
use super::store::{Store, unix_millis};
use bridge_core::audit::Deed;
use bridge_core::{Bridge, Event, UnixMillis};
use std::sync::Arc;
use std::time::Duration;

/// How often.
const EVERY: Duration = Duration::from_secs(3_600);
/// People are warned at the start, and each so many times.
const WARNS_EVERY: usize = 24;
/// The pause after a rollout that went.
const BETWEEN: Duration = Duration::from_millis(50);
/// Milliseconds of a day.
const DAY: u64 = 24 * 3_600_000;

/// How many days things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    /// Each message of telemetry; then it is kept by the hour.
    pub(crate) telemetry: u32,
    /// Telemetry by the hour.
    pub(crate) hours: u32,
    /// Windows of drift, and alarms that nobody hears of any more.
    pub(crate) drift: u32,
    /// Commands with their answers, and inputs that devices gave.
    pub(crate) answers: u32,
    /// Lines of the audit log; for ever without it.
    pub(crate) audit: Option<u32>,
    /// Bundles that nothing needs.
    pub(crate) bundles: u32,
    /// Rollouts, from their end on.
    pub(crate) rollouts: u32,
}

/// Until it is ended.
pub(crate) async fn keep(retention: Retention, ends: Arc<Ends>, store: Store, driver: Driver) {
    let mut every = tokio::time::interval(EVERY);
    for round in 0_usize.. {
        every.tick().await;
        if round.is_multiple_of(WARNS_EVERY) {
            let ends = ends.clone();
            // Nobody asks a bridge that stops.
            let _ = driver.look(move |bridge| expiry::warn(&expiry::with_root(&ends, bridge))).await;
        }
        once(retention, &store, &driver, unix_millis()).await;
    }
}

/// Each by itself: what cannot be done keeps nothing else from going.
async fn once(retention: Retention, store: &Store, driver: &Driver, now: UnixMillis) {
    let Retention { telemetry, hours, drift, answers, audit, bundles, rollouts } = retention;
    let oldest = |days: u32| now.saturating_sub(u64::from(days) * DAY);
    let tell = |what: &str, done: anyhow::Result<()>| {
        if let Err(error) = done {
            tracing::warn!(
                error = format!("{error:#}"),
                "old {what} could not be removed: it is tried again in an hour"
            );
        }
    };
    tell("telemetry", store.roll_up(oldest(telemetry)).await);
    tell("telemetry by the hour", store.forget_hours(oldest(hours.max(telemetry))).await);
    tell("windows of drift", store.forget_drift(oldest(drift)).await);
    tell("commands and inputs", store.forget_answers(oldest(answers)).await);
    tell("keys of requests", store.forget_keys(oldest(1)).await);
    if let Some(audit) = audit {
        tell("lines of the audit log", store.trim_audit(oldest(audit)).await);
    }
    tell("rollouts", forget_rollouts(driver, oldest(rollouts)).await);
    tell("bundles", forget_bundles(driver, oldest(bundles), bundles).await);
}

/// One at a time: nobody waits for more.
async fn forget_rollouts(driver: &Driver, before: UnixMillis) -> anyhow::Result<()> {
    while let Some(rollout) = driver.look(move |bridge| bridge.old_rollouts(before).first().copied()).await? {
        let deed = Deed::new("bridge", "rollout.forget", &rollout.to_string(), DONE);
        driver.request(Event::RolloutAged { rollout, before }, deed).await?.map(drop)?;
        tokio::time::sleep(BETWEEN).await;
    }
    Ok(())
}

async fn forget_bundles(driver: &Driver, before: UnixMillis, days: u32) -> anyhow::Result<()> {
    let may_go = move |bridge: &Bridge| bridge.stock().iter().any(|(of, stay)| stay.is_none() && of.pushed < before);
    if driver.look(may_go).await? {
        let what = format!("pushed more than {days} days ago, and nothing needs them now");
        let deed = Deed::new("bridge", "release.gc", &what, DONE);
        driver.request(Event::StockCleared { before }, deed).await?.map(drop)?;
    }
    Ok(())
}
