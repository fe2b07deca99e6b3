//! People and what lets them in: tokens by the SHA-256 of what they hold, each with a name.

use super::{Store, plain};
use bridge_core::UnixMillis;
use bridge_core::access::Access;
use bridge_core::audit::Deed;
use sqlx::Row;
use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use trust::Digest;

/// How long what was read of a token counts. Whoever takes one back need not wait for it, unless the request was cut off.
const COUNTS_MS: u64 = 1_000;

/// Somebody who holds a token.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    /// As the audit log names them.
    pub(crate) name: String,
    /// What they may do.
    pub(crate) access: Access,
}

/// Who held which token a moment ago: whoever asks a thousand times a second is looked up once.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// Grows when a token is taken back: what was read before is not noted after it.
    round: u64,
    known: BTreeMap<Digest, (UnixMillis, Person)>,
}

/// Why a token is not made, or not taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoChange {
    /// Somebody of that name holds one.
    Taken,
    /// Nobody does.
    Unknown,
    /// Nobody could let anybody in any more.
    Last,
}

impl Store {
    /// A new secret of 256 bits.
    pub(super) fn secret(&self) -> anyhow::Result<String> {
        Ok(format!("petrel_{}", hex::encode(self.chance::<32>()?)))
    }

    /// Makes a token for somebody of a new name, in one with what the audit log says of it; its secret is known to nobody
    /// else from now on.
    pub(crate) async fn let_in(
        &self,
        name: &str,
        access: &Access,
        asked: &Deed,
    ) -> anyhow::Result<Result<String, NoChange>> {
        let token = self.secret()?;
        let mut writer = self.turn().await?;
        let mut transaction = self.begin(&mut writer).await?;
        let made = sqlx::query(
            "INSERT INTO token (sha256, role, created, name, streams, until) SELECT $1, $2, $3, $4, $5, $6
             WHERE NOT EXISTS (SELECT 1 FROM token WHERE name = $4)",
        )
        .bind(Digest::of(token.as_bytes()).0.as_slice())
        .bind(access.role.as_str())
        .bind(i64::try_from(access.since)?)
        .bind(plain(name))
        .bind(serde_json::to_string(&access.streams)?)
        .bind(access.until.map(i64::try_from).transpose()?)
        .execute(&mut *transaction)
        .await?;
        if made.rows_affected() == 0 {
            return Ok(Err(NoChange::Taken));
        }
        self.add(&mut transaction, [asked]).await?;
        transaction.commit().await?;
        Ok(Ok(token))
    }

    /// Everybody who is let in.
    pub(crate) async fn people(&self) -> anyhow::Result<Vec<Person>> {
        let rows = sqlx::query("SELECT name, role, streams, created, until FROM token ORDER BY name");
        rows.fetch_all(&self.readers).await?.iter().map(person).collect()
    }

    /// Who holds `token`, if anybody does.
    pub(crate) async fn holder(&self, token: &str) -> anyhow::Result<Option<Person>> {
        let (sha256, now) = (Digest::of(token.as_bytes()), self.now());
        let round = {
            let holders = self.holders();
            if let Some((at, person)) = holders.known.get(&sha256)
                && now.abs_diff(*at) < COUNTS_MS
            {
                return Ok(Some(person.clone()));
            }
            holders.round
        };
        let row = sqlx::query("SELECT name, role, streams, created, until FROM token WHERE sha256 = $1");
        let row = row.bind(sha256.0.to_vec()).fetch_optional(&self.readers).await?;
        let person = row.as_ref().map(person).transpose()?;
        let mut holders = self.holders();
        if let Some(person) = person.clone().filter(|_| holders.round == round) {
            holders.known.insert(sha256, (now, person));
        }
        Ok(person)
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes somebody's token back, in one with what the audit log says of it.
    pub(crate) async fn shut_out(&self, name: &str, asked: &Deed) -> anyhow::Result<Result<(), NoChange>> {
        let mut writer = self.turn().await?;
        let mut transaction = self.begin(&mut writer).await?;
        let gone =
            sqlx::query("DELETE FROM token WHERE name = $1").bind(plain(name)).execute(&mut *transaction).await?;
        if gone.rows_affected() == 0 {
            return Ok(Err(NoChange::Unknown));
        }
        let admins: i64 = sqlx::query_scalar("SELECT count(*) FROM token WHERE role = 'admin' AND until IS NULL")
            .fetch_one(&mut *transaction)
            .await?;
        if admins == 0 {
            return Ok(Err(NoChange::Last));
        }
        self.add(&mut transaction, [asked]).await?;
        let gone = transaction.commit().await;
        let mut holders = self.holders();
        *holders = Holders { round: holders.round + 1, known: BTreeMap::new() };
        Ok(Ok(gone?))
    }
}

fn person(row: &sqlx::any::AnyRow) -> anyhow::Result<Person> {
    let role: &str = row.try_get("role")?;
    let access = Access {
        role: role.parse().map_err(anyhow::Error::msg)?,
        streams: serde_json::from_str(row.try_get("streams")?)?,
        since: u64::try_from(row.try_get::<i64, _>("created")?)?,
        until: row.try_get::<Option<i64>, _>("until")?.map(u64::try_from).transpose()?,
    };
    Ok(Person { name: row.try_get("name")?, access })
}

#[cfg(test)]
mod tests {
    use super::super::tests::everywhere;
    use super::*;
    use bridge_core::access::Role;
    use std::collections::BTreeSet;

    #[tokio::test]
    async fn a_token_that_was_taken_back_lets_nobody_in_however_lately_it_did() {
        everywhere(async |place| {
            let store = place.open().await;
            let access = |role| Access { role, streams: BTreeSet::new(), since: 0, until: None };
            let deed = Deed::new("admin", "people", "", "done");
            let let_in = async |name, role| store.let_in(name, &access(role), &deed).await.unwrap().unwrap();
            let (_, eve) = (let_in("ada", Role::Admin).await, let_in("eve", Role::Viewer).await);
            for _ in 0..3 {
                assert_eq!(store.holder(&eve).await.unwrap().unwrap().name, "eve");
            }
            let round = store.holders().round;
            assert_eq!(store.shut_out("eve", &deed).await.unwrap(), Ok(()));
            assert!(store.holder(&eve).await.unwrap().is_none());
            assert_ne!(store.holders().round, round, "what somebody reads meanwhile is not noted");
            // Of somebody with the same name again nothing is mistaken.
            let again = let_in("eve", Role::Operator).await;
            assert!(store.holder(&eve).await.unwrap().is_none());
            assert_eq!(store.holder(&again).await.unwrap().unwrap().access.role, Role::Operator);
        })
        .await;
    }
}
