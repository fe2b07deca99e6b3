//! Requests that count once, however often they are sent: by the key that who asks gave them.
//!
//! What came of one is written in the transaction that did it.

use super::{Store, plain};
use bridge_core::UnixMillis;
use sqlx::{AnyConnection, Row};
use trust::Digest;

/// A request that has a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Once {
    /// Who asks.
    pub(crate) who: String,
    /// The key.
    pub(crate) key: String,
    /// Of all that is asked.
    pub(crate) asked: Digest,
}

/// Keeps what came of a request.
pub(super) async fn keep(
    connection: &mut AnyConnection,
    once: &Once,
    number: u64,
    now: UnixMillis,
) -> anyhow::Result<()> {
    sqlx::query("INSERT INTO once (who, key, asked, at, number) VALUES ($1, $2, $3, $4, $5)")
        .bind(plain(&once.who))
        .bind(plain(&once.key))
        .bind(once.asked.0.as_slice())
        .bind(i64::try_from(now)?)
        .bind(i64::try_from(number)?)
        .execute(connection)
        .await?;
    Ok(())
}

impl Store {
    /// What was asked with this key, and the number of what came of it.
    pub(crate) async fn once(&self, who: &str, key: &str) -> anyhow::Result<Option<(Digest, u64)>> {
        let row =
            sqlx::query("SELECT asked, number FROM once WHERE who = $1 AND key = $2").bind(plain(who)).bind(plain(key));
        let Some(row) = row.fetch_optional(&self.readers).await? else { return Ok(None) };
        let asked: [u8; 32] = row.try_get::<Vec<u8>, _>("asked")?.try_into().unwrap_or_default();
        Ok(Some((Digest(asked), u64::try_from(row.try_get::<i64, _>("number")?)?)))
    }

    /// Removes keys from before `oldest`.
    pub(crate) async fn forget_keys(&self, oldest: UnixMillis) -> anyhow::Result<()> {
        self.forget("DELETE FROM once WHERE (who, key) IN (SELECT who, key FROM once WHERE at < $1 LIMIT $2)", oldest)
            .await
    }
}
