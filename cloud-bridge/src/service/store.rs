//! What land keeps: one SQLite file in WAL mode, synced before anything is acknowledged.

pub(crate) mod audit;
pub(crate) mod commands;
pub(crate) mod drift;
pub(crate) mod notices;
pub(crate) mod once;
pub(crate) mod people;
pub(crate) mod retention;
pub(crate) mod samples;
mod tokens;

pub(crate) use tokens::{Kept, NoEntry};

use anyhow::Context;
use bridge_core::audit::Deed;
use bridge_core::{CommandDraft, Record, UnixMillis};
use commands::Answered;
use notices::Wants;
use once::Once;
use protocol::{DeviceId, Drift, Telemetry};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use trust::Digest;

/// Rows of one statement.
const MOST_ROWS: usize = 128;

/// The database.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pool: SqlitePool,
    /// Whose audit log it holds.
    fleet: Arc<str>,
    /// What webhooks are told.
    wants: Arc<[Wants]>,
    /// Somebody is to be told.
    pub(crate) noticed: watch::Sender<()>,
}

/// What was said that is kept in one with the records that it led to.
#[derive(Debug, Default)]
pub(crate) struct Words {
    /// What devices measured.
    pub(crate) telemetry: Vec<Telemetry>,
    /// Windows of drift.
    pub(crate) windows: Vec<Drift>,
    /// What came of commands.
    pub(crate) answers: Vec<Answered>,
    /// Requests of people that count once, and the number of what came of each.
    pub(crate) once: Vec<(Once, u64)>,
}

impl Words {
    /// Whether nothing was said.
    pub(crate) fn is_empty(&self) -> bool {
        self.telemetry.is_empty() && self.windows.is_empty() && self.answers.is_empty() && self.once.is_empty()
    }
}

/// One telemetry message and when it came.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Milliseconds since 1970, by land's clock.
    pub(crate) at: UnixMillis,
    /// What the device said.
    pub(crate) telemetry: Telemetry,
}

/// Milliseconds since 1970 by the system's clock.
pub(crate) fn unix_millis() -> UnixMillis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

impl Store {
    /// Opens or makes `bridge.db` in `data`, and brings it to this version's form.
    pub(crate) async fn open(data: &Path, fleet: &str) -> anyhow::Result<Self> {
        let store = Self::beside(data, fleet, true).await?;
        let unusable = || format!("cannot use the database in {}", data.display());
        sqlx::migrate!("./migrations").run(&store.pool).await.with_context(unusable)?;
        Ok(store)
    }

    /// The same database as it is, beside whoever uses it; made where it is not there, if `new`.
    pub(crate) async fn beside(data: &Path, fleet: &str, new: bool) -> anyhow::Result<Self> {
        let path = data.join("bridge.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(new)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let unusable = || format!("cannot use the database {}", path.display());
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.with_context(unusable)?;
        Ok(Self { pool, fleet: fleet.into(), wants: Arc::default(), noticed: watch::channel(()).0 })
    }

    /// With webhooks that are told.
    pub(crate) fn telling(self, wants: Vec<Wants>) -> Self {
        Self { wants: wants.into(), ..self }
    }

    /// The fleet whose audit log it holds.
    pub(crate) fn fleet(&self) -> &str {
        &self.fleet
    }

    /// Every record.
    pub(crate) async fn records(&self) -> anyhow::Result<Vec<Record>> {
        let rows = sqlx::query("SELECT body FROM record").fetch_all(&self.pool).await?;
        let parse = |row: &sqlx::sqlite::SqliteRow| -> anyhow::Result<Record> {
            serde_json::from_str(row.try_get("body")?).context("a record of the database is not understood")
        };
        rows.iter().map(parse).collect()
    }

    /// Saves records, in their order, and the words that led to them: all or none.
    #[tracing::instrument(level = "debug", skip_all, fields(records = records.len(), telemetry = words.telemetry.len()))]
    pub(crate) async fn save(&self, records: &[Record], words: &Words) -> anyhow::Result<()> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        keep(&mut transaction, &words.telemetry).await?;
        for window in &words.windows {
            self.keep_window(&mut transaction, window).await?;
        }
        for answered in &words.answers {
            commands::answer(&mut transaction, answered).await?;
        }
        for (once, number) in &words.once {
            once::keep(&mut transaction, once, *number).await?;
        }
        // Of a row that changes several times the last is kept, and many at a time; so are the lines of the audit log.
        let (mut rows, mut deeds) = (BTreeMap::new(), Vec::new());
        for record in records {
            match row(record) {
                Row::Deed(deed) => deeds.push(deed),
                Row::Command(draft) => commands::save(&mut transaction, draft).await?,
                Row::Gone(kind, key) => {
                    let gone = sqlx::query("DELETE FROM record WHERE kind = ? AND key = ?").bind(kind).bind(&key);
                    gone.execute(&mut *transaction).await?;
                    rows.remove(&(kind, key));
                }
                Row::Is(kind, key) => {
                    // Against the one before it, also within these records.
                    let before = rows.insert((kind, key), record);
                    self.note(&mut transaction, before, record).await?;
                }
            }
        }
        self.add(&mut transaction, deeds).await?;
        put(&mut transaction, &rows).await?;
        transaction.commit().await?;
        self.noticed.send_replace(());
        Ok(())
    }

    /// Which of these messages are new, each once: whatever is said again, before or after a crash of either side.
    pub(crate) async fn are_new(&self, all: &[Telemetry]) -> anyhow::Result<Vec<bool>> {
        let mut connection = self.pool.acquire().await?;
        let mut seen = BTreeSet::new();
        for some in portions(all) {
            // The join looks up each; `IN` would go through the whole table.
            let mut known = QueryBuilder::<Sqlite>::new("WITH asked(device, run, seq) AS (");
            known.push_values(some, |mut row, Telemetry { device, run, seq, .. }| {
                row.push_bind(device.as_str()).push_bind(run.cast_signed()).push_bind(seq.cast_signed());
            });
            known.push(
                ") SELECT telemetry.device, telemetry.run, telemetry.seq FROM asked CROSS JOIN telemetry USING (device, run, seq)",
            );
            for row in known.build().fetch_all(&mut *connection).await? {
                let numbers = (row.try_get::<i64, _>("run")?, row.try_get::<i64, _>("seq")?);
                seen.insert((row.try_get::<&str, _>("device")?.to_owned(), numbers));
            }
        }
        let is_new = |Telemetry { device, run, seq, .. }: &Telemetry| {
            seen.insert((device.to_string(), (run.cast_signed(), seq.cast_signed())))
        };
        Ok(all.iter().map(is_new).collect())
    }

    /// The latest `limit` telemetry messages of a device, the oldest first: each by itself, and before these by the hour.
    pub(crate) async fn telemetry(&self, device: &DeviceId, limit: u32) -> anyhow::Result<Vec<Taken>> {
        let rows =
            sqlx::query("SELECT taken, body FROM telemetry WHERE device = ? ORDER BY taken DESC, seq DESC LIMIT ?")
                .bind(device.as_str())
                .bind(limit)
                .fetch_all(&self.pool)
                .await?;
        let latest: Vec<Taken> = rows.iter().rev().map(taken).collect::<Result<_, _>>()?;
        let before = latest.first().map_or(unix_millis(), |oldest| oldest.at);
        let mut all = self.hours(device, before, limit - u32::try_from(latest.len())?).await?;
        all.extend(latest);
        Ok(all)
    }

    /// Writes the first token to `path` when the database knows none.
    pub(crate) async fn admit(&self, path: &Path) -> anyhow::Result<()> {
        let known: i64 = sqlx::query_scalar("SELECT count(*) FROM token").fetch_one(&self.pool).await?;
        if known > 0 {
            return Ok(());
        }
        let token = people::secret()?;
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
        let written = file.and_then(|mut f| std::io::Write::write_all(&mut f, token.as_bytes()).and(f.sync_all()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
        sqlx::query("INSERT INTO token (sha256, role, created, name) VALUES (?, 'admin', ?, 'admin')")
            .bind(Digest::of(token.as_bytes()).0.as_slice())
            .bind(i64::try_from(unix_millis())?)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// One moment of the database, as a file of its own that is not there yet.
    pub(crate) async fn copy_to(&self, path: &Path) -> anyhow::Result<()> {
        let path = path.to_str().context("the folder has no plain name")?;
        sqlx::query("VACUUM INTO ?").bind(path).execute(&self.pool).await?;
        Ok(())
    }

    /// Whether somebody could write now.
    pub(crate) async fn is_writable(&self) -> anyhow::Result<()> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?.rollback().await?)
    }

    /// Closes the database in order.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

fn taken(row: &sqlx::sqlite::SqliteRow) -> anyhow::Result<Taken> {
    let telemetry = protocol::decode_cbor(row.try_get::<&[u8], _>("body")?)?;
    Ok(Taken { at: u64::try_from(row.try_get::<i64, _>("taken")?)?, telemetry })
}

/// A statement is prepared for each length: so rows go in portions of 128, 64, … and 1.
fn portions<T>(all: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = all;
    std::iter::from_fn(move || {
        let length = (rest.len() + 1).next_power_of_two() / 2;
        let (some, more) = rest.split_at(length.min(MOST_ROWS));
        rest = more;
        (!some.is_empty()).then_some(some)
    })
}

async fn keep(connection: &mut SqliteConnection, telemetry: &[Telemetry]) -> anyhow::Result<()> {
    let now = i64::try_from(unix_millis())?;
    for some in portions(telemetry) {
        let mut kept = QueryBuilder::<Sqlite>::new("INSERT INTO telemetry ");
        kept.push_values(some, |mut row, said| {
            row.push_bind(said.device.as_str()).push_bind(said.run.cast_signed()).push_bind(said.seq.cast_signed());
            row.push_bind(now).push_bind(protocol::encode_cbor(said));
        });
        kept.push(" ON CONFLICT DO NOTHING").build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Replaces rows.
async fn put(
    connection: &mut SqliteConnection,
    rows: &BTreeMap<(&'static str, String), &Record>,
) -> anyhow::Result<()> {
    let mut bodies = Vec::with_capacity(rows.len());
    for ((kind, key), record) in rows {
        bodies.push((kind, key, serde_json::to_string(record)?));
    }
    for some in portions(&bodies) {
        let mut put = QueryBuilder::<Sqlite>::new("INSERT INTO record ");
        put.push_values(some, |mut row, (kind, key, body)| {
            row.push_bind(*kind).push_bind(key.as_str()).push_bind(body.as_str());
        });
        put.push(" ON CONFLICT DO UPDATE SET body = excluded.body").build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Where a record is kept.
enum Row<'a> {
    /// In the audit log, and nowhere else.
    Deed(&'a Deed),
    /// In a table of its own.
    Command(&'a CommandDraft),
    /// In this row, in place of what was there.
    Is(&'static str, String),
    /// This row goes.
    Gone(&'static str, String),
}

fn row(record: &Record) -> Row<'_> {
    let member = |rollout: u64, device: &DeviceId| format!("{rollout}/{device}");
    match record {
        Record::Deed(deed) => Row::Deed(deed),
        Record::Command(draft) => Row::Command(draft),
        Record::Device(device) => Row::Is("device", device.id.to_string()),
        Record::NoDevice { id } => Row::Gone("device", id.to_string()),
        Record::Release(release) => Row::Is("release", release.bundle.to_string()),
        Record::NoRelease { bundle } => Row::Gone("release", bundle.to_string()),
        Record::Rollout(rollout) => Row::Is("rollout", rollout.id.to_string()),
        Record::NoRollout { rollout } => Row::Gone("rollout", rollout.to_string()),
        Record::Member(row) => Row::Is("member", member(row.rollout, &row.device)),
        Record::NoMember { rollout, device } => Row::Gone("member", member(*rollout, device)),
        Record::Document(document) => {
            Row::Is("document", format!("{:?}/{}", document.document, document.slot()).to_lowercase())
        }
        Record::Samples(request) => Row::Is("samples", request.id.to_string()),
        Record::NoSamples { request } => Row::Gone("samples", request.to_string()),
        Record::Beacons { .. } => Row::Is("beacons", String::new()),
        Record::PutBack { .. } => Row::Is("put_back", String::new()),
        Record::Withdrawn(withdrawn) => Row::Is("withdrawn", withdrawn.serial.clone()),
        Record::NotWithdrawn { serial } => Row::Gone("withdrawn", serial.clone()),
    }
}

#[cfg(test)]
mod tests;
