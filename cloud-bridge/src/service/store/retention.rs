//! What becomes of what is old: telemetry becomes hours, and the rest goes.
//!
//! A little at a time: whoever saves something waits for that much, and no longer.

use super::audit::{MAX_LINES, Which};
use super::{Store, Taken};
use anyhow::Context;
use bridge_core::UnixMillis;
use bridge_core::audit::{Head, TRIMMED};
use protocol::{DeviceId, Telemetry};
use sqlx::{AnyConnection, Row};
use std::collections::BTreeMap;
use std::time::Duration;

/// Rows that go at a time, and the pause after them.
const FEW: i64 = 2_000;
const BETWEEN: Duration = Duration::from_millis(50);
/// What the statements for a device cost, in rows.
const A_DEVICE: i64 = 50;
/// Fewer are not looked at: all of a device that came together go together, and no more than these do.
const LEAST: i64 = 512;
/// Old messages that are looked at for whose they are.
const MOST: i64 = 1_000_000;
/// Milliseconds of an hour.
const HOUR: u64 = 3_600_000;

impl Store {
    /// Merges telemetry that was taken before `oldest` into one message a device and hour.
    pub(crate) async fn roll_up(&self, oldest: UnixMillis) -> anyhow::Result<()> {
        // Whole hours: what is merged is not seen in part.
        let oldest = i64::try_from(oldest - oldest % HOUR)?;
        // By time, and so of the old ones alone; whoever is not among so many is in an hour.
        let devices = "SELECT DISTINCT device FROM
                       (SELECT device FROM telemetry WHERE taken < $1 ORDER BY taken LIMIT $2) AS few ORDER BY device";
        let devices = sqlx::query_scalar(devices).bind(oldest).bind(MOST).fetch_all(&self.readers).await?;
        let mut devices: Vec<String> = devices;
        while !devices.is_empty() {
            let mut writer = self.turn().await?;
            let mut transaction = self.begin(&mut writer).await?;
            let mut left = FEW;
            while left >= LEAST
                && let Some(device) = devices.last()
            {
                let (merged, more) = roll_up(&mut transaction, device, oldest, left).await?;
                if !more {
                    devices.pop();
                }
                left -= merged.max(A_DEVICE);
            }
            transaction.commit().await?;
            drop(writer);
            tokio::time::sleep(BETWEEN).await;
        }
        Ok(())
    }

    /// Removes hours that were before `oldest`.
    pub(crate) async fn forget_hours(&self, oldest: UnixMillis) -> anyhow::Result<()> {
        let few = "DELETE FROM telemetry_hour WHERE (device, hour) IN
                   (SELECT device, hour FROM telemetry_hour WHERE hour < $1 LIMIT $2)";
        self.forget(few, oldest).await?;
        let few = "DELETE FROM telemetry_run WHERE (device, run) IN
                   (SELECT device, run FROM telemetry_run WHERE taken < $1 LIMIT $2)";
        self.forget(few, oldest).await
    }

    /// Removes windows that ended, and alarms that were last heard of, before `oldest`.
    pub(crate) async fn forget_drift(&self, oldest: UnixMillis) -> anyhow::Result<()> {
        let few = "DELETE FROM drift_window WHERE (device, run, seq) IN
                   (SELECT device, run, seq FROM drift_window WHERE ended < $1 LIMIT $2)";
        self.forget(few, oldest).await?;
        self.forget("DELETE FROM drift_alarm WHERE id IN (SELECT id FROM drift_alarm WHERE last < $1 LIMIT $2)", oldest)
            .await
    }

    /// Removes commands with their answers, and inputs of devices, from before `oldest`.
    pub(crate) async fn forget_answers(&self, oldest: UnixMillis) -> anyhow::Result<()> {
        for few in [
            "DELETE FROM command WHERE (device, seq) IN (SELECT device, seq FROM command WHERE at < $1 LIMIT $2)",
            "DELETE FROM sample WHERE (request, device) IN (SELECT request, device FROM sample WHERE at < $1 LIMIT $2)",
        ] {
            self.forget(few, oldest).await?;
        }
        Ok(())
    }

    pub(super) async fn forget(&self, few: &'static str, oldest: UnixMillis) -> anyhow::Result<()> {
        let oldest = i64::try_from(oldest)?;
        while sqlx::query(few).bind(oldest).bind(FEW).execute(&mut *self.turn().await?).await?.rows_affected() > 0 {
            tokio::time::sleep(BETWEEN).await;
        }
        Ok(())
    }

    /// Removes lines of the audit log that were written before `oldest`, but for the last one; the log says so first, and keeps the
    /// digest that what is left holds on to.
    pub(crate) async fn trim_audit(&self, oldest: UnixMillis) -> anyhow::Result<()> {
        let Some(last) = self.last_before(oldest).await? else { return Ok(()) };
        self.witness(&last.trimmed()).await?;
        let last = i64::try_from(last.seq)?;
        loop {
            let mut writer = self.turn().await?;
            let mut transaction = self.begin(&mut writer).await?;
            let next =
                "SELECT seq, sha256 FROM (SELECT seq, sha256 FROM audit WHERE seq <= $1 ORDER BY seq LIMIT $2) AS few
                        ORDER BY seq DESC LIMIT 1";
            let next = sqlx::query(next).bind(last).bind(FEW).fetch_optional(&mut *transaction).await?;
            let Some(next) = next else { return Ok(()) };
            let (seq, sha256): (i64, Vec<u8>) = (next.try_get("seq")?, next.try_get("sha256")?);
            sqlx::query("DELETE FROM audit_base").execute(&mut *transaction).await?;
            let base = sqlx::query("INSERT INTO audit_base (seq, sha256) VALUES ($1, $2)").bind(seq).bind(sha256);
            base.execute(&mut *transaction).await?;
            sqlx::query("DELETE FROM audit WHERE seq <= $1").bind(seq).execute(&mut *transaction).await?;
            transaction.commit().await?;
            drop(writer);
            tokio::time::sleep(BETWEEN).await;
        }
    }

    /// The last line that was written before `oldest`, as far as all before it were; never the last line of all, and nothing
    /// for the sake of lines that only say what went before.
    async fn last_before(&self, oldest: UnixMillis) -> anyhow::Result<Option<Head>> {
        let end = self.audit_head().await?.seq;
        let (mut last, mut matters) = (None::<Head>, false);
        let mut after = self.audit_base().await?.map_or(0, |base| base.seq);
        loop {
            let which = Which { after: Some(after), limit: MAX_LINES, ..Which::default() };
            let lines = self.audit(&which).await?;
            let came = lines.len();
            for line in lines {
                let entry = line.entry().context("a line of the audit log was edited: nothing is removed from it")?;
                if entry.at >= oldest || entry.seq >= end {
                    return Ok(last.filter(|_| matters));
                }
                matters |= entry.action != TRIMMED;
                after = entry.seq;
                last = Some(Head { seq: entry.seq, sha256: line.sha256 });
            }
            if came == 0 {
                return Ok(last.filter(|_| matters));
            }
        }
    }

    /// Hours of a device from before `before`, the oldest first; of many the newest.
    pub(super) async fn hours(&self, device: &DeviceId, before: UnixMillis, limit: u32) -> anyhow::Result<Vec<Taken>> {
        let rows = sqlx::query(
            "SELECT taken, body FROM telemetry_hour WHERE device = $1 AND hour <= $2 ORDER BY hour DESC LIMIT $3",
        );
        // Whole hours: what is merged between this question and the one before it is not told twice.
        let before = before.saturating_sub(HOUR);
        let rows = rows
            .bind(device.as_str())
            .bind(i64::try_from(before)?)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().rev().map(super::taken).collect()
    }
}

/// Merges at most so many of a device's old messages; how many these were, and whether there are more.
async fn roll_up(connection: &mut AnyConnection, device: &str, oldest: i64, most: i64) -> anyhow::Result<(i64, bool)> {
    let rows = sqlx::query(
        "SELECT run, seq, taken, body FROM telemetry WHERE device = $1 AND taken < $2 ORDER BY taken, run, seq LIMIT $3",
    );
    let mut rows = rows.bind(device).bind(oldest).bind(most).fetch_all(&mut *connection).await?;
    let more = i64::try_from(rows.len())? == most;
    // They go by their time: those that came with the last one wait for all of these.
    let mut before = oldest;
    if let Some(last) = rows.last().filter(|_| more) {
        before = last.try_get("taken")?;
        rows.retain(|row| row.try_get::<i64, _>("taken").is_ok_and(|taken| taken < before));
    }
    // More in one millisecond than go at a time: nothing of that is whole, and it stays.
    let more = more && !rows.is_empty();
    let mut hours: BTreeMap<u64, (i64, Telemetry)> = BTreeMap::new();
    let mut runs: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for row in &rows {
        let (run, seq, taken): (i64, i64, i64) = (row.try_get("run")?, row.try_get("seq")?, row.try_get("taken")?);
        let last = runs.entry(run).or_insert((seq, taken));
        *last = (last.0.max(seq), last.1.max(taken));
        let Taken { at, telemetry } = match super::taken(row) {
            Ok(taken) => taken,
            // Of another version, or damaged: it was of no use where it was, and what comes after it is.
            Err(error) => {
                tracing::warn!(
                    device,
                    error = format!("{error:#}"),
                    "a message of telemetry is not understood, and goes"
                );
                continue;
            }
        };
        let hour = at - at % HOUR;
        let known = match hours.remove(&hour) {
            Some(known) => Some(known),
            None => hour_of(connection, device, hour).await?,
        };
        let sum = match known {
            Some((_, older)) => merged(older, telemetry),
            None => telemetry,
        };
        hours.insert(hour, (taken, sum));
    }
    let merged = sqlx::query("DELETE FROM telemetry WHERE device = $1 AND taken < $2");
    merged.bind(device).bind(before).execute(&mut *connection).await?;
    for (hour, (taken, sum)) in hours {
        sqlx::query(
            "INSERT INTO telemetry_hour (device, hour, taken, body) VALUES ($1, $2, $3, $4)
             ON CONFLICT (device, hour) DO UPDATE SET taken = excluded.taken, body = excluded.body",
        )
        .bind(device)
        .bind(i64::try_from(hour)?)
        .bind(taken)
        .bind(protocol::encode_cbor(&sum))
        .execute(&mut *connection)
        .await?;
    }
    for (run, (seq, taken)) in runs {
        sqlx::query(
            "INSERT INTO telemetry_run (device, run, seq, taken) VALUES ($1, $2, $3, $4)
             ON CONFLICT (device, run) DO UPDATE SET taken = excluded.taken,
             seq = CASE WHEN telemetry_run.seq > excluded.seq THEN telemetry_run.seq ELSE excluded.seq END",
        )
        .bind(device)
        .bind(run)
        .bind(seq)
        .bind(taken)
        .execute(&mut *connection)
        .await?;
    }
    Ok((i64::try_from(rows.len())?, more))
}

async fn hour_of(connection: &mut AnyConnection, device: &str, hour: u64) -> anyhow::Result<Option<(i64, Telemetry)>> {
    let row = sqlx::query("SELECT taken, body FROM telemetry_hour WHERE device = $1 AND hour = $2");
    let row = row.bind(device).bind(i64::try_from(hour)?).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    let Taken { at, telemetry } = super::taken(&row)?;
    Ok(Some((i64::try_from(at)?, telemetry)))
}

/// Of a device that names more releases in an hour than a message has rows, some of the older ones do not count.
fn merged(mut older: Telemetry, mut newer: Telemetry) -> Telemetry {
    while !newer.has_room_for(&older) && older.streams.pop().is_some() {}
    newer.absorb(&older);
    newer
}

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Bytes of the database.
    pub(crate) database: u64,
    /// When the oldest telemetry came that is there by itself.
    pub(crate) telemetry_since: Option<UnixMillis>,
    /// When the oldest hour began.
    pub(crate) hours_since: Option<UnixMillis>,
    /// Lines of the audit log that are there.
    pub(crate) audit_lines: u64,
}

impl Store {
    /// How much there is.
    pub(crate) async fn size(&self) -> anyhow::Result<Size> {
        let first = self.number("SELECT min(seq) FROM audit").await?.unwrap_or(1);
        let last = self.number("SELECT max(seq) FROM audit").await?.unwrap_or(0);
        Ok(Size {
            database: self.bytes().await?,
            telemetry_since: self.number("SELECT min(taken) FROM telemetry").await?,
            hours_since: self.number("SELECT min(hour) FROM telemetry_hour").await?,
            audit_lines: (last + 1).saturating_sub(first),
        })
    }

    /// Bytes of the database.
    pub(crate) async fn bytes(&self) -> anyhow::Result<u64> {
        Ok(self.number(self.dialect.size()).await?.unwrap_or(0))
    }

    async fn number(&self, sql: &'static str) -> anyhow::Result<Option<u64>> {
        let number: Option<i64> = sqlx::query_scalar(sql).fetch_one(&self.readers).await?;
        Ok(number.map(u64::try_from).transpose()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Words;
    use super::super::tests::{device, everywhere, telemetry};
    use super::*;
    use bridge_core::audit::{Deed, Verifier};
    use protocol::{LATENCY_BUCKETS, StreamTelemetry};

    fn worked(seq: u64, releases: std::ops::Range<u64>) -> Telemetry {
        let row = |release| StreamTelemetry {
            stream: "s".parse().unwrap(),
            release,
            answers: 10,
            errors: 1,
            latency: [1; LATENCY_BUCKETS],
            took_us: 100,
            memory_kb: seq,
        };
        Telemetry { streams: releases.map(row).collect(), cpu_percent: seq as f32, ..telemetry(1, seq, 60) }
    }

    /// As if these had been taken by and by, from `began` on.
    async fn take(store: &Store, said: Vec<Telemetry>, began: u64, every: u64) {
        let count = said.len() as u64;
        store.save(&[], &Words { telemetry: said, ..Words::default() }).await.unwrap();
        for seq in 0..count {
            let taken = sqlx::query("UPDATE telemetry SET taken = $1 WHERE device = 'a' AND seq = $2");
            let taken = taken.bind(i64::try_from(began + seq * every).unwrap()).bind(i64::try_from(seq).unwrap());
            taken.execute(&mut *store.turn().await.unwrap()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn old_telemetry_is_told_by_the_hour_and_none_of_it_is_lost() {
        everywhere(async |place| {
            let store = place.open().await;
            let began = 1_700_000_000_000 / HOUR * HOUR;
            // Three hours of one message a minute, of which the last one is not old yet.
            take(&store, (0..180).map(|seq| worked(seq, 1..3)).collect(), began, 60_000).await;
            for again in 0..2 {
                store.roll_up(began + 2 * HOUR + 1).await.unwrap();
                let told = store.telemetry(&device("a"), 1_000).await.unwrap();
                assert_eq!(told.len(), 62, "{again}");
                for (hour, of) in told[..2].iter().enumerate() {
                    let t = &of.telemetry;
                    assert_eq!((t.span_s, t.measured, t.cpu_percent), (3_600, 60, (hour * 60 + 59) as f32));
                    let rows: Vec<_> =
                        t.streams.iter().map(|row| (row.release, row.answers, row.errors, row.took_us)).collect();
                    assert_eq!(rows, [(1, 600, 60, 6_000), (2, 600, 60, 6_000)]);
                    assert_eq!(of.at, began + hour as u64 * HOUR + 59 * 60_000);
                }
                assert_eq!(told[2].telemetry.seq, 120);
            }
            // Of few those that are latest.
            let latest = store.telemetry(&device("a"), 61).await.unwrap();
            assert_eq!((latest.len(), latest[0].at), (61, began + 2 * HOUR - 60_000));
            assert!(store.telemetry(&device("b"), 9).await.unwrap().is_empty());
            // What was merged is no news when it is said again, and what comes after it is.
            let again = [(1, 0), (1, 119), (1, 120), (1, 180), (2, 0)].map(|(run, seq)| telemetry(run, seq, 60));
            assert_eq!(store.are_new(&again).await.unwrap(), [false, false, false, true, true]);
            let size = store.size().await.unwrap();
            assert_eq!((size.hours_since, size.telemetry_since), (Some(began), Some(began + 2 * HOUR)));
            store.forget_hours(began + HOUR).await.unwrap();
            assert_eq!(store.size().await.unwrap().hours_since, Some(began + HOUR));
        })
        .await;
    }

    /// What comes late joins its hour; a device that names ever new releases makes no row that grows for ever.
    #[tokio::test]
    async fn an_hour_is_one_row_of_a_bounded_size() {
        everywhere(async |place| {
            let store = place.open().await;
            let began = 1_700_000_000_000 / HOUR * HOUR;
            take(&store, (0..30).map(|seq| worked(seq, seq * 40..seq * 40 + 40)).collect(), began, 60_000).await;
            store.roll_up(began + HOUR).await.unwrap();
            let told = store.telemetry(&device("a"), 9).await.unwrap();
            let rows = told[0].telemetry.streams.len();
            assert_eq!((told.len(), told[0].telemetry.measured, rows), (1, 30, protocol::MAX_STREAM_ROWS));
            let late = Telemetry { run: 2, ..worked(0, 1..2) };
            take(&store, vec![late], began + 40 * 60_000, 1).await;
            store.roll_up(began + HOUR).await.unwrap();
            let told = store.telemetry(&device("a"), 9).await.unwrap();
            assert_eq!(
                (told.len(), told[0].telemetry.measured, told[0].telemetry.streams.len()),
                (1, 31, protocol::MAX_STREAM_ROWS)
            );
        })
        .await;
    }

    async fn verified(store: &Store) -> Head {
        let mut verifier = Verifier::new("sea", []);
        if let Some(base) = store.audit_base().await.unwrap() {
            verifier = verifier.behind(base).unwrap().0;
        }
        let mut after = 0;
        loop {
            let which = Which { after: Some(after), limit: MAX_LINES, ..Which::default() };
            let lines = store.audit(&which).await.unwrap();
            for line in &lines {
                after = verifier.take(line).unwrap().seq;
            }
            if lines.is_empty() {
                return verifier.end().unwrap();
            }
        }
    }

    #[tokio::test]
    async fn old_lines_of_the_audit_log_go_and_the_rest_still_holds() {
        everywhere(async |place| {
            let store = place.open().await;
            // Nothing is removed of an empty log, nor of one that is young.
            store.trim_audit(u64::MAX).await.unwrap();
            for n in 0..2_100 {
                store.witness(&Deed::new("admin", "device.approve", &format!("edge-{n}"), "done")).await.unwrap();
            }
            store.trim_audit(0).await.unwrap();
            assert_eq!((store.audit_base().await.unwrap(), verified(&store).await.seq), (None, 2_100));

            // All but the last line of then, which the log needs to go on from.
            store.trim_audit(u64::MAX >> 1).await.unwrap();
            let (base, end) = (store.audit_base().await.unwrap().unwrap(), verified(&store).await);
            assert_eq!((base.seq, end.seq), (2_099, 2_101));
            let last = store.audit(&Which { limit: 9, ..Which::default() }).await.unwrap();
            let said =
                last.iter().map(|line| line.entry().unwrap()).map(|entry| (entry.seq, entry.action, entry.subject));
            let trimmed = (2_101, "audit.trim".to_owned(), format!("lines up to 2099 {}", base.sha256));
            assert_eq!(said.collect::<Vec<_>>(), [(2_100, "device.approve".into(), "edge-2099".into()), trimmed]);
            assert_eq!(store.size().await.unwrap().audit_lines, 2);
            store.witness(&Deed::new("admin", "device.approve", "edge-1", "done")).await.unwrap();
            assert_eq!(verified(&store).await.seq, 2_102);
        })
        .await;
    }
}
