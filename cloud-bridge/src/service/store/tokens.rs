//! One-time tokens of devices: only their hashes are kept, each bound to a device and to the first key that uses it.
//!
//! A token that was used lets the same key in again, since an answer may be lost; no other key, ever.

use super::Store;
use crate::fault::Fault;
use bridge_core::Invitation;
use protocol::{DeviceId, JoinToken};
use sqlx::Row;
use trust::Digest;

/// Tokens that may wait to be used.
const MAX_WAITING: i64 = 10_000;
/// What is over is shown for a month.
const SHOWN_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// The digits of a hash that name a token.
const ID_DIGITS: usize = 12;

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoEntry {
    /// Never made, or revoked.
    #[error("this token is not known here, or was revoked")]
    Unknown,
    /// Too late.
    #[error("this token has expired")]
    Expired,
    /// It let another key in.
    #[error("this token was used already, by another key")]
    Used,
    /// Made for somebody else.
    #[error("this token is for another device")]
    OtherDevice,
}

/// A token as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// What names it: the beginning of its hash.
    pub(crate) id: String,
    /// Whom it lets in.
    pub(crate) device: String,
    /// Whether a person must still decide.
    pub(crate) pending: bool,
    /// When it ends, in milliseconds since 1970.
    pub(crate) until: u64,
    /// Whether a key has used it.
    pub(crate) used: bool,
}

fn hash(token: &JoinToken) -> Vec<u8> {
    Digest::of(token.as_str().as_bytes()).0.to_vec()
}

impl Store {
    /// A new token for `device`.
    pub(crate) async fn new_join_token(
        &self,
        device: &DeviceId,
        ttl_ms: u64,
        pending: bool,
    ) -> anyhow::Result<(JoinToken, Kept)> {
        let now = self.now();
        let old = i64::try_from(now.saturating_sub(SHOWN_MS))?;
        let mut writer = self.turn().await?;
        sqlx::query("DELETE FROM join_token WHERE until < $1").bind(old).execute(&mut *writer).await?;
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM join_token WHERE used_by IS NULL AND until > $1")
            .bind(i64::try_from(now)?)
            .fetch_one(&mut *writer)
            .await?;
        if waiting >= MAX_WAITING {
            let fault = Fault::new(format!("{waiting} tokens already wait to be used"));
            return Err(fault.remedy("revoke some: petrel devices token ls").into());
        }
        let token = JoinToken::new(&self.chance()?);
        let until = now.saturating_add(ttl_ms);
        sqlx::query("INSERT INTO join_token (sha256, device, pending, made, until) VALUES ($1, $2, $3, $4, $5)")
            .bind(hash(&token))
            .bind(device.as_str())
            .bind(i64::from(pending))
            .bind(i64::try_from(now)?)
            .bind(i64::try_from(until)?)
            .execute(&mut *writer)
            .await?;
        let id = hex::encode(hash(&token))[..ID_DIGITS].to_owned();
        Ok((token, Kept { id, device: device.to_string(), pending, until, used: false }))
    }

    /// Whether `token` would let `device` in with this key. Uses nothing up.
    pub(crate) async fn look_at_join_token(
        &self,
        token: &JoinToken,
        device: &DeviceId,
        key: Option<&Digest>,
    ) -> anyhow::Result<Result<Invitation, NoEntry>> {
        let row = sqlx::query("SELECT device, pending, made, until, used_by FROM join_token WHERE sha256 = $1")
            .bind(hash(token))
            .fetch_optional(&self.readers)
            .await?;
        let Some(row) = row else { return Ok(Err(NoEntry::Unknown)) };
        let used: Option<Vec<u8>> = row.try_get("used_by")?;
        let until = u64::try_from(row.try_get::<i64, _>("until")?)?;
        let entry = if row.try_get::<&str, _>("device")? != device.as_str() {
            Err(NoEntry::OtherDevice)
        } else if until <= self.now() {
            Err(NoEntry::Expired)
        } else if key.is_some_and(|key| used.is_some_and(|by| by != key.0)) {
            Err(NoEntry::Used)
        } else {
            Ok(Invitation {
                made: u64::try_from(row.try_get::<i64, _>("made")?)?,
                pending: row.try_get::<i64, _>("pending")? != 0,
            })
        };
        Ok(entry)
    }

    /// Binds a token to a key. Of two keys that come at once, one wins.
    pub(crate) async fn use_join_token(
        &self,
        token: &JoinToken,
        device: &DeviceId,
        key: &Digest,
    ) -> anyhow::Result<Result<Invitation, NoEntry>> {
        sqlx::query(
            "UPDATE join_token SET used_by = $1 WHERE sha256 = $2 AND used_by IS NULL AND until > $3 AND device = $4",
        )
        .bind(key.0.to_vec())
        .bind(hash(token))
        .bind(i64::try_from(self.now())?)
        .bind(device.as_str())
        .execute(&mut *self.turn().await?)
        .await?;
        self.look_at_join_token(token, device, Some(key)).await
    }

    /// Gives a token back that let nobody in after all.
    pub(crate) async fn give_back_join_token(&self, token: &JoinToken) -> anyhow::Result<()> {
        sqlx::query("UPDATE join_token SET used_by = NULL WHERE sha256 = $1")
            .bind(hash(token))
            .execute(&mut *self.turn().await?)
            .await?;
        Ok(())
    }

    /// Every token of the last month, those that end first in front.
    pub(crate) async fn join_tokens(&self) -> anyhow::Result<Vec<Kept>> {
        let rows = sqlx::query("SELECT sha256, device, pending, until, used_by FROM join_token ORDER BY until, sha256")
            .fetch_all(&self.readers)
            .await?;
        let read = |row: &sqlx::any::AnyRow| -> anyhow::Result<Kept> {
            Ok(Kept {
                id: hex::encode(row.try_get::<&[u8], _>("sha256")?)[..ID_DIGITS].to_owned(),
                device: row.try_get("device")?,
                pending: row.try_get::<i64, _>("pending")? != 0,
                until: u64::try_from(row.try_get::<i64, _>("until")?)?,
                used: row.try_get::<Option<&[u8]>, _>("used_by")?.is_some(),
            })
        };
        rows.iter().map(read).collect()
    }

    /// Takes a token back; whether there was one.
    pub(crate) async fn revoke_join_token(&self, id: &str) -> anyhow::Result<bool> {
        let all = sqlx::query_scalar::<_, Vec<u8>>("SELECT sha256 FROM join_token").fetch_all(&self.readers).await?;
        let Some(sha256) = all.into_iter().find(|sha256| hex::encode(sha256)[..ID_DIGITS] == *id) else {
            return Ok(false);
        };
        let gone = sqlx::query("DELETE FROM join_token WHERE sha256 = $1").bind(sha256);
        Ok(gone.execute(&mut *self.turn().await?).await?.rows_affected() > 0)
    }
}
