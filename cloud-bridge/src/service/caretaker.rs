//! The caretaker: every hour, what is older than it is kept becomes less, or goes.
//!
//! Decides how long things are kept. How they go is the store's, and which bundles may go the core's.

use super::driver::{DONE, Driver};
use super::store::{Store, unix_millis};
use bridge_core::audit::Deed;
use bridge_core::{Bridge, Event, UnixMillis};
use std::time::Duration;

/// How often.
const EVERY: Duration = Duration::from_secs(3_600);
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
pub(crate) async fn keep(retention: Retention, store: Store, driver: Driver) {
    let mut every = tokio::time::interval(EVERY);
    loop {
        every.tick().await;
        if let Err(error) = once(retention, &store, &driver, unix_millis()).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "what is old could not be removed: it is tried again in an hour"
            );
        }
    }
}

async fn once(retention: Retention, store: &Store, driver: &Driver, now: UnixMillis) -> anyhow::Result<()> {
    let Retention { telemetry, hours, drift, answers, audit, bundles, rollouts } = retention;
    let oldest = |days: u32| now.saturating_sub(u64::from(days) * DAY);
    store.roll_up(oldest(telemetry)).await?;
    store.forget_hours(oldest(hours.max(telemetry))).await?;
    store.forget_drift(oldest(drift)).await?;
    store.forget_answers(oldest(answers)).await?;
    store.forget_keys(oldest(1)).await?;
    if let Some(audit) = audit {
        store.trim_audit(oldest(audit)).await?;
    }
    let before = oldest(rollouts);
    if driver.look(move |bridge| !bridge.old_rollouts(before).is_empty()).await? {
        let deed = Deed::new("bridge", "rollout.gc", &format!("they ended {rollouts} days ago"), DONE);
        driver.request(Event::RolloutsAged { before }, deed).await?.map(drop)?;
    }
    let before = oldest(bundles);
    let may_go = move |bridge: &Bridge| bridge.stock().iter().any(|(of, stay)| stay.is_none() && of.pushed < before);
    if driver.look(may_go).await? {
        let deed = Deed::new("bridge", "release.gc", &format!("nothing needed them for {bundles} days"), DONE);
        driver.request(Event::StockCleared { before }, deed).await?.map(drop)?;
    }
    Ok(())
}
