//! People and what lets them in: tokens by the SHA-256 of what they hold, each with a name.

use super::{Store, unix_millis};
use crate::fault::Fault;
use bridge_core::UnixMillis;
use sqlx::Row;
use trust::Digest;

/// Somebody who holds a token.
#[derive(Debug)]
pub(crate) struct Person {
    /// As the audit log names them.
    pub(crate) name: String,
    /// When the token was made.
    pub(crate) created: UnixMillis,
}

/// Why a token is not made, or not taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoChange {
    /// Somebody of that name holds one.
    Taken,
    /// Nobody does.
    Unknown,
    /// Nobody else would be let in any more.
    Last,
}

/// A new secret of 256 bits.
pub(super) fn secret() -> anyhow::Result<String> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|e| Fault::new("the system gives no randomness for a token").because(e))?;
    Ok(format!("petrel_{}", hex::encode(secret)))
}

impl Store {
    /// Makes a token for somebody of a new name; its secret is known to nobody else from now on.
    pub(crate) async fn let_in(&self, name: &str) -> anyhow::Result<Result<String, NoChange>> {
        let token = secret()?;
        let made = sqlx::query(
            "INSERT INTO token (sha256, role, created, name) SELECT ?1, 'admin', ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM token WHERE name = ?3)",
        )
        .bind(Digest::of(token.as_bytes()).0.as_slice())
        .bind(i64::try_from(unix_millis())?)
        .bind(name)
        .execute(&self.pool)
        .await?;
        Ok(if made.rows_affected() > 0 { Ok(token) } else { Err(NoChange::Taken) })
    }

    /// Everybody who is let in.
    pub(crate) async fn people(&self) -> anyhow::Result<Vec<Person>> {
        let rows = sqlx::query("SELECT name, created FROM token ORDER BY name").fetch_all(&self.pool).await?;
        let person = |row: &sqlx::sqlite::SqliteRow| -> anyhow::Result<Person> {
            Ok(Person { name: row.try_get("name")?, created: u64::try_from(row.try_get::<i64, _>("created")?)? })
        };
        rows.iter().map(person).collect()
    }

    /// Takes somebody's token back.
    pub(crate) async fn shut_out(&self, name: &str) -> anyhow::Result<Result<(), NoChange>> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let others: i64 = sqlx::query_scalar("SELECT count(*) FROM token WHERE name <> ?")
            .bind(name)
            .fetch_one(&mut *transaction)
            .await?;
        if others == 0 {
            return Ok(Err(NoChange::Last));
        }
        let gone = sqlx::query("DELETE FROM token WHERE name = ?").bind(name).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(if gone.rows_affected() > 0 { Ok(()) } else { Err(NoChange::Unknown) })
    }
}
