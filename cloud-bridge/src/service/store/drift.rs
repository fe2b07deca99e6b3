//! Windows of drift on disk, and the alarms of them. Which alarm is news is decided by `bridge_core::drift`.

use super::{Store, plain};
use bridge_core::UnixMillis;
use bridge_core::drift::{ALARM_BUDGET, Concern, QUIET, Window};
use bridge_core::notice::Notice;
use protocol::{DeviceId, Drift, StreamName};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// The most windows that are read for one question.
pub(crate) const MAX_WINDOWS: u32 = 100_000;
/// The most alarms that are read at once.
const MAX_ALARMS: u32 = 1_000;
/// The most bytes of windows that are kept of one device: years of it, and no more if it goes mad.
const MAX_DEVICE_BYTES: i64 = 64 << 20;
/// A device's clock that is ahead by more is wrong.
const AHEAD: UnixMillis = 5 * 60_000;

/// What a window would be among those that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// One that is not there yet.
    New,
    /// One that is there.
    Known,
    /// One too many: its device has sent more than is kept of one.
    Full,
}

/// Which windows.
#[derive(Debug, Clone)]
pub(crate) struct WhichWindows {
    /// Of this stream.
    pub(crate) stream: StreamName,
    /// That ended at this time or later.
    pub(crate) since: UnixMillis,
    /// That ended before this time.
    pub(crate) until: UnixMillis,
    /// Of this device alone.
    pub(crate) device: Option<DeviceId>,
}

impl Store {
    /// What a window would be here.
    pub(crate) async fn room_for(&self, drift: &Drift) -> anyhow::Result<Room> {
        let mut connection = self.readers.acquire().await?;
        let known = sqlx::query("SELECT 1 FROM drift_window WHERE device = $1 AND run = $2 AND seq = $3");
        let known = known.bind(drift.device.as_str()).bind(drift.run.cast_signed()).bind(drift.seq.cast_signed());
        if known.fetch_optional(&mut *connection).await?.is_some() {
            return Ok(Room::Known);
        }
        let sum = "SELECT coalesce(sum(length(body)), 0) FROM drift_window WHERE device = $1";
        let sum = sqlx::query_scalar::<_, i64>(sum);
        let sum = sum.bind(drift.device.as_str()).fetch_one(&mut *connection).await?;
        Ok(if sum < MAX_DEVICE_BYTES { Room::New } else { Room::Full })
    }

    /// Keeps a window, once, and what its alarms change. What the device's clock says is taken where it is plausible.
    pub(super) async fn keep_window(
        &self,
        connection: &mut AnyConnection,
        drift: &Drift,
        now: UnixMillis,
    ) -> anyhow::Result<()> {
        let ended = drift.at.filter(|at| *at <= now + AHEAD).unwrap_or(now);
        let kept = sqlx::query(
            "INSERT INTO drift_window (device, run, seq, stream, ended, body) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        )
        .bind(drift.device.as_str())
        .bind(drift.run.cast_signed())
        .bind(drift.seq.cast_signed())
        .bind(drift.stream.as_str())
        .bind(i64::try_from(ended)?)
        .bind(protocol::encode_cbor(drift))
        .execute(&mut *connection)
        .await?;
        if kept.rows_affected() == 0 {
            return Ok(());
        }
        for alarm in &drift.alarms {
            let known = newest(connection, &drift.stream, Some(&drift.device), &alarm.feature).await?;
            match known.filter(|(_, concern)| concern.is_open(ended)) {
                Some((id, mut concern)) => {
                    let before = concern.clone();
                    concern.again(drift, alarm, ended);
                    self.announce(connection, Notice::of_concern(Some(&before), &concern)).await?;
                    put(connection, Some(id), &concern).await?;
                }
                None => {
                    let concern = Concern::raised(drift, alarm, ended);
                    if raise(connection, &concern).await? {
                        self.announce(connection, Notice::of_concern(None, &concern)).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Windows, the oldest first; of very many the newest.
    pub(crate) async fn windows(&self, which: &WhichWindows) -> anyhow::Result<Vec<Window>> {
        let rows = sqlx::query(
            "SELECT ended, body FROM drift_window WHERE stream = $1 AND ended >= $2 AND ended < $3 AND ($4 IS NULL OR device = $4)
             ORDER BY ended DESC, device DESC, run DESC, seq DESC LIMIT $5",
        )
        .bind(which.stream.as_str())
        .bind(i64::try_from(which.since).unwrap_or(i64::MAX))
        .bind(i64::try_from(which.until).unwrap_or(i64::MAX))
        .bind(which.device.as_ref().map(DeviceId::as_str))
        .bind(i64::from(MAX_WINDOWS))
        .fetch_all(&self.readers)
        .await?;
        let parse = |row: &AnyRow| -> anyhow::Result<Window> {
            let drift = protocol::decode_cbor(row.try_get::<&[u8], _>("body")?)?;
            Ok(Window { ended: u64::try_from(row.try_get::<i64, _>("ended")?)?, drift })
        };
        rows.iter().rev().map(parse).collect()
    }

    /// Alarms with their numbers, the newest first: those that are still heard of, or all.
    pub(crate) async fn concerns(&self, stream: Option<&StreamName>, all: bool) -> anyhow::Result<Vec<(i64, Concern)>> {
        let since = if all { 0 } else { self.now().saturating_sub(QUIET) };
        let rows = sqlx::query(
            "SELECT id, body FROM drift_alarm WHERE ($1 IS NULL OR stream = $1) AND last >= $2 ORDER BY last DESC, id DESC LIMIT $3",
        )
        .bind(stream.map(StreamName::as_str))
        .bind(i64::try_from(since)?)
        .bind(i64::from(MAX_ALARMS))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(concern).collect()
    }

    /// Somebody has seen an alarm; `None` when there is none of that number.
    pub(crate) async fn acknowledge(&self, id: i64, who: &str) -> anyhow::Result<Option<Concern>> {
        let mut writer = self.turn().await?;
        let mut transaction = self.begin(&mut writer).await?;
        let row = sqlx::query("SELECT id, body FROM drift_alarm WHERE id = $1").bind(id);
        let Some(row) = row.fetch_optional(&mut *transaction).await? else { return Ok(None) };
        let (id, mut concern) = concern(&row)?;
        // Who saw it first has seen it.
        concern.acknowledged.get_or_insert_with(|| (who.to_owned(), self.now()));
        put(&mut transaction, Some(id), &concern).await?;
        transaction.commit().await?;
        Ok(Some(concern))
    }
}

fn concern(row: &AnyRow) -> anyhow::Result<(i64, Concern)> {
    Ok((row.try_get("id")?, serde_json::from_str(row.try_get("body")?)?))
}

async fn newest(
    connection: &mut AnyConnection,
    stream: &StreamName,
    device: Option<&DeviceId>,
    feature: &str,
) -> anyhow::Result<Option<(i64, Concern)>> {
    let row = sqlx::query(
        "SELECT id, body FROM drift_alarm WHERE stream = $1 AND device = $2 AND feature = $3 ORDER BY last DESC, id DESC LIMIT 1",
    )
    .bind(stream.as_str())
    .bind(device.map_or("", DeviceId::as_str))
    .bind(plain(feature))
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(concern).transpose()
}

/// Raises an alarm, or counts it with those that are too many; whether it is told by itself.
async fn raise(connection: &mut AnyConnection, new: &Concern) -> anyhow::Result<bool> {
    let day = i64::try_from(new.first.saturating_sub(QUIET))?;
    let today = sqlx::query_scalar::<_, i64>(
        "SELECT count(*) FROM drift_alarm WHERE stream = $1 AND first >= $2 AND device <> ''",
    );
    let today = today.bind(new.stream.as_str()).bind(day).fetch_one(&mut *connection).await?;
    if today.cast_unsigned() < ALARM_BUDGET {
        put(connection, None, new).await?;
        return Ok(true);
    }
    let known = newest(connection, &new.stream, None, "").await?.filter(|(_, held)| held.is_open(new.first));
    let (id, mut held) =
        known.map_or_else(|| (None, Concern::held_back(&new.stream, new.first)), |(id, held)| (Some(id), held));
    (held.windows, held.last) = (held.windows + 1, held.last.max(new.last));
    put(connection, id, &held).await?;
    Ok(false)
}

async fn put(connection: &mut AnyConnection, id: Option<i64>, concern: &Concern) -> anyhow::Result<()> {
    let (last, body) = (i64::try_from(concern.last)?, serde_json::to_string(concern)?);
    let put = match id {
        Some(id) => {
            sqlx::query("UPDATE drift_alarm SET last = $1, body = $2 WHERE id = $3").bind(last).bind(body).bind(id)
        }
        None => sqlx::query(
            "INSERT INTO drift_alarm (last, body, stream, device, feature, first) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(last)
        .bind(body)
        .bind(concern.stream.as_str())
        .bind(concern.device.as_ref().map_or("", DeviceId::as_str))
        .bind(plain(&concern.feature))
        .bind(i64::try_from(concern.first)?),
    };
    put.execute(connection).await?;
    Ok(())
}
