//! What land keeps, in SQLite or PostgreSQL: on the disk before anything is acknowledged.

pub(crate) mod audit;
pub(crate) mod commands;
pub(crate) mod copy;
pub(crate) mod database;
pub(crate) mod drift;
pub(crate) mod notices;
pub(crate) mod once;
pub(crate) mod people;
pub(crate) mod retention;
pub(crate) mod samples;
mod tokens;

pub(crate) use tokens::{Kept, NoEntry};

use super::ADMIN_TOKEN;
use crate::fault::Fault;
use anyhow::Context;
use bridge_core::audit::Deed;
use bridge_core::{CommandDraft, Record, UnixMillis};
use commands::Answered;
use database::{Database, Dialect, Opened, Turn, Writer};
use notices::Wants;
use once::Once;
use people::Holders;
use protocol::{DeviceId, Drift, Telemetry};
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Row as _, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use trust::Digest;

/// How often a server is asked whether it is there, and how long it may take to say so.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOK_PATIENCE: Duration = Duration::from_secs(60);
/// Rows of one statement: the more the better, and each length is a statement of its own.
const MOST_ROWS: usize = 128;
/// Bytes of a value on its way to a server, besides its text.
const VALUE: usize = 12;
/// How a bridge changes its database.
const MOVE: &str = "to move it: `petrel backup` with the old configuration, stop the bridge, move the data folder away, and `petrel restore` \
                    with the new one";

/// The database.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    readers: AnyPool,
    writer: Writer,
    dialect: Dialect,
    outside: Outside,
    /// Whose audit log it holds.
    fleet: Arc<str>,
    /// Who asked lately.
    holders: Arc<Mutex<Holders>>,
    /// What webhooks are told.
    wants: Arc<[Wants]>,
    /// Somebody is to be told.
    pub(crate) noticed: watch::Sender<()>,
}

/// What a store takes from outside: the time, and chance. Tests give it both.
#[derive(Debug, Clone, Copy)]
struct Outside {
    now: fn() -> UnixMillis,
    chance: fn(&mut [u8]) -> Result<(), getrandom::Error>,
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
    /// Opens or makes the database, and brings it to this version's form.
    pub(crate) async fn open(database: &Database, fleet: &str) -> anyhow::Result<Self> {
        let Opened { dialect, writer, readers } = database.open().await?;
        let outside = Outside { now: unix_millis, chance: getrandom::fill };
        let (fleet, noticed) = (fleet.into(), watch::channel(()).0);
        let (holders, wants) = (Arc::default(), Arc::default());
        Ok(Self { readers, writer, dialect, outside, fleet, holders, wants, noticed })
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
        let rows = sqlx::query("SELECT body FROM record ORDER BY kind, key").fetch_all(&self.readers).await?;
        let parse = |row: &AnyRow| -> anyhow::Result<Record> {
            serde_json::from_str(row.try_get("body")?).context("a record of the database is not understood")
        };
        rows.iter().map(parse).collect()
    }

    /// Saves records, in their order, and the words that led to them: all or none.
    #[tracing::instrument(level = "debug", skip_all, fields(records = records.len(), telemetry = words.telemetry.len()))]
    pub(crate) async fn save(&self, records: &[Record], words: &Words) -> anyhow::Result<()> {
        let mut writer = self.turn().await?;
        let mut transaction = self.begin(&mut writer).await?;
        let now = self.now();
        self.keep(&mut transaction, &words.telemetry, now).await?;
        for window in &words.windows {
            self.keep_window(&mut transaction, window, now).await?;
        }
        commands::answer(&mut transaction, self.dialect, &words.answers, now).await?;
        for (once, number) in &words.once {
            once::keep(&mut transaction, once, *number, now).await?;
        }
        // Of a row that changes several times the last is kept, and many at a time; so are commands, and lines of the audit log.
        let (mut rows, mut deeds, mut drafts) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        for record in records {
            match row(record) {
                Row::Deed(deed) => deeds.push(deed),
                Row::Command(draft) => drop(drafts.insert((&draft.device, draft.seq), draft)),
                Row::Gone(kind, key) => drop(rows.insert((kind, key), None)),
                Row::Is(kind, key) => {
                    // Against the one before it, also within these records.
                    let before = rows.insert((kind, key), Some(record)).flatten();
                    self.note(&mut transaction, before, record).await?;
                }
            }
        }
        commands::save(&mut transaction, self.dialect, drafts).await?;
        self.add(&mut transaction, deeds).await?;
        self.put(&mut transaction, &rows).await?;
        transaction.commit().await?;
        self.noticed.send_replace(());
        Ok(())
    }

    /// Which of these messages are new, each once: whatever is said again, before or after a crash of either side.
    pub(crate) async fn are_new(&self, all: &[Telemetry]) -> anyhow::Result<Vec<bool>> {
        let mut connection = self.readers.acquire().await?;
        let mut seen = BTreeSet::new();
        for some in portions(all, self.dialect, |said| said.device.as_str().len() + 3 * VALUE) {
            // Of a question of its own for each there is one plan: it is looked up. A join, or `IN`, may go through the whole table.
            let known = format!(
                "WITH asked(device, run, seq) AS (VALUES {}) SELECT device, run, seq FROM asked
                 WHERE (SELECT 1 FROM telemetry AS t WHERE t.device = asked.device AND t.run = asked.run AND t.seq = asked.seq) = 1
                 OR (SELECT 1 FROM telemetry_run AS t WHERE t.device = asked.device AND t.run = asked.run AND t.seq >= asked.seq) = 1",
                self.dialect.rows(some.len(), 3)
            );
            let mut known = sqlx::query(AssertSqlSafe(known));
            for Telemetry { device, run, seq, .. } in some {
                known = known.bind(device.as_str()).bind(run.cast_signed()).bind(seq.cast_signed());
            }
            for row in known.fetch_all(&mut *connection).await? {
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
        let rows = sqlx::query(
            "SELECT taken, body FROM telemetry WHERE device = $1 ORDER BY taken DESC, seq DESC, run DESC LIMIT $2",
        );
        let rows = rows.bind(device.as_str()).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        let latest: Vec<Taken> = rows.iter().rev().map(taken).collect::<Result<_, _>>()?;
        let before = latest.first().map_or(self.now(), |oldest| oldest.at);
        let mut all = self.hours(device, before, limit - u32::try_from(latest.len())?).await?;
        all.extend(latest);
        Ok(all)
    }

    /// Writes the first token to a file in `data` when the database knows none.
    pub(crate) async fn admit(&self, data: &Path) -> anyhow::Result<()> {
        let known: i64 = sqlx::query_scalar("SELECT count(*) FROM token").fetch_one(&self.readers).await?;
        if known > 0 {
            return Ok(());
        }
        if self.dialect == Dialect::Sqlite
            && std::fs::read_dir(data.join("bundles")).is_ok_and(|mut bundles| bundles.next().is_some())
        {
            let other = Fault::new("the database is new, and there are bundles of a land that had another one");
            let other = other.because(format!("nobody is known to the {} in {}", database::FILE, data.display()));
            return Err(other
                .remedy("name that one with `database`, or put a backup back with `petrel restore`")
                .into());
        }
        if self.dialect == Dialect::Postgres && data.join(database::FILE).exists() {
            let other = Fault::new("the PostgreSQL database is empty, and what this bridge knew lies in SQLite");
            let other = other.because(format!("there is a {} in {}", database::FILE, data.display()));
            return Err(other.remedy(MOVE).into());
        }
        let (token, path) = (self.secret()?, data.join(ADMIN_TOKEN));
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = file.and_then(|mut f| std::io::Write::write_all(&mut f, token.as_bytes()).and(f.sync_all()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
        sqlx::query("INSERT INTO token (sha256, role, created, name) VALUES ($1, 'admin', $2, 'admin')")
            .bind(Digest::of(token.as_bytes()).0.as_slice())
            .bind(i64::try_from(self.now())?)
            .execute(&mut *self.turn().await?)
            .await?;
        Ok(())
    }

    /// Whether somebody could write now.
    pub(crate) async fn is_writable(&self) -> anyhow::Result<()> {
        Ok(self.begin(&mut self.turn().await?).await?.rollback().await?)
    }

    /// Waits until the server is lost, and says how it was noticed. A file is not lost.
    ///
    /// Whether what was under way was committed nobody knows then: the bridge ends, and begins with what it finds.
    pub(crate) async fn lost(&self) -> anyhow::Error {
        if self.dialect == Dialect::Sqlite {
            return std::future::pending().await;
        }
        let look = async || anyhow::Ok(self.turn().await?.ping().await?);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match tokio::time::timeout(LOOK_PATIENCE, look()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(_) => return anyhow::anyhow!("it has not answered for {} s", LOOK_PATIENCE.as_secs()),
            }
        }
    }

    /// Closes the database in order.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    fn now(&self) -> UnixMillis {
        (self.outside.now)()
    }

    /// Bytes that nobody can foretell.
    fn chance<const N: usize>(&self) -> anyhow::Result<[u8; N]> {
        let mut bytes = [0; N];
        let none = |e| Fault::new("the system gives no randomness").because(e);
        (self.outside.chance)(&mut bytes).map_err(none)?;
        Ok(bytes)
    }

    /// Waits until nobody else writes.
    async fn turn(&self) -> anyhow::Result<Turn> {
        self.writer.turn().await
    }

    async fn begin<'a>(&self, turn: &'a mut Turn) -> sqlx::Result<Transaction<'a, Any>> {
        turn.begin(self.dialect).await
    }

    async fn keep(
        &self,
        connection: &mut AnyConnection,
        telemetry: &[Telemetry],
        now: UnixMillis,
    ) -> anyhow::Result<()> {
        let now = i64::try_from(now)?;
        let bodies: Vec<_> = telemetry.iter().map(|said| (said, protocol::encode_cbor(said))).collect();
        let bytes = |(said, body): &(&Telemetry, Vec<u8>)| said.device.as_str().len() + body.len() + 5 * VALUE;
        for some in portions(&bodies, self.dialect, bytes) {
            let rows = self.dialect.rows(some.len(), 5);
            let kept =
                format!("INSERT INTO telemetry (device, run, seq, taken, body) VALUES {rows} ON CONFLICT DO NOTHING");
            let mut kept = sqlx::query(AssertSqlSafe(kept));
            for (said, body) in some {
                kept = kept.bind(said.device.as_str()).bind(said.run.cast_signed()).bind(said.seq.cast_signed());
                kept = kept.bind(now).bind(body.as_slice());
            }
            kept.execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// Replaces rows, and removes those of which nothing is left.
    async fn put(
        &self,
        connection: &mut AnyConnection,
        rows: &BTreeMap<(&'static str, String), Option<&Record>>,
    ) -> anyhow::Result<()> {
        let (mut gone, mut there) = (Vec::new(), Vec::with_capacity(rows.len()));
        for ((kind, key), record) in rows {
            match record {
                None => gone.push((kind, key)),
                Some(record) => there.push((kind, key, *record)),
            }
        }
        for some in portions(&gone, self.dialect, |(_, key)| key.len() + 2 * VALUE) {
            let rows = self.dialect.rows(some.len(), 2);
            let gone = format!("DELETE FROM record WHERE (kind, key) IN (VALUES {rows})");
            let mut gone = sqlx::query(AssertSqlSafe(gone));
            for (kind, key) in some {
                gone = gone.bind(**kind).bind(key.as_str());
            }
            gone.execute(&mut *connection).await?;
        }
        // Written out a few at a time: a rollout to all changes each device at once.
        for some in there.chunks(MOST_ROWS) {
            let write = |(_, _, record): &(_, _, &Record)| serde_json::to_string(record);
            let bodies = some.iter().map(write).collect::<Result<Vec<String>, _>>()?;
            let some: Vec<_> = some.iter().zip(&bodies).map(|((kind, key, _), body)| (*kind, *key, body)).collect();
            for some in portions(&some, self.dialect, |(_, key, body)| key.len() + body.len() + 3 * VALUE) {
                let rows = self.dialect.rows(some.len(), 3);
                let put = format!(
                    "INSERT INTO record (kind, key, body) VALUES {rows} ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body"
                );
                let mut put = sqlx::query(AssertSqlSafe(put));
                for (kind, key, body) in some {
                    put = put.bind(**kind).bind(key.as_str()).bind(body.as_str());
                }
                put.execute(&mut *connection).await?;
            }
        }
        Ok(())
    }
}

fn taken(row: &AnyRow) -> anyhow::Result<Taken> {
    let telemetry = protocol::decode_cbor(row.try_get::<&[u8], _>("body")?)?;
    Ok(Taken { at: u64::try_from(row.try_get::<i64, _>("taken")?)?, telemetry })
}

/// A statement is prepared for each length: so rows go in portions of [`MOST_ROWS`], half of it, … and 1, each of no more bytes than there
/// may be; of a longer row alone it is that.
fn portions<T>(all: &[T], dialect: Dialect, bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = all;
    std::iter::from_fn(move || {
        let mut length = ((rest.len() + 1).next_power_of_two() / 2).min(MOST_ROWS);
        while length > 1 && rest[..length].iter().map(&bytes).sum::<usize>() > dialect.most_bytes() {
            length /= 2;
        }
        let (some, more) = rest.split_at(length);
        rest = more;
        (!some.is_empty()).then_some(some)
    })
}

/// A text of somebody who may write anything: PostgreSQL keeps every character but one.
fn plain(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
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
        Record::FanOut(fan_out) => Row::Is("fan-out", fan_out.id.to_string()),
        Record::NoFanOut { fan_out } => Row::Gone("fan-out", fan_out.to_string()),
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
