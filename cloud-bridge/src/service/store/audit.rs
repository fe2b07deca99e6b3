//! The audit log on disk: lines are added in the transaction of what they tell of, and never changed.
//!
//! How lines hold each other is decided by `bridge_core::audit`. The end of the log is read inside each
//! transaction that adds to it, so no two lines can follow the same one.

use super::{Store, unix_millis};
use bridge_core::audit::{Deed, Head, Line};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use trust::Digest;

/// The most lines that are read at once.
pub(crate) const MAX_LINES: u32 = 1_000;

/// Which lines of the log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Which {
    /// Those behind this number, from there on; otherwise the last ones.
    pub(crate) after: Option<u64>,
    /// How many.
    pub(crate) limit: u32,
    /// Written at this time or later, milliseconds since 1970.
    pub(crate) since: Option<u64>,
    /// Of this name.
    pub(crate) who: Option<String>,
    /// This action, or one that begins with it and a dot.
    pub(crate) action: Option<String>,
}

/// A line that somebody damaged may be no JSON: it is found by whoever verifies, who asks without a filter.
macro_rules! lines {
    ($order:literal) => {
        concat!(
            "SELECT * FROM (SELECT seq, text, sha256 FROM audit WHERE seq > ?1
             AND (?2 IS NULL OR iif(json_valid(text), text ->> 'at', 0) >= ?2)
             AND (?3 IS NULL OR iif(json_valid(text), text ->> 'who', '') = ?3)
             AND (?4 IS NULL OR iif(json_valid(text), text ->> 'action', '') = ?4
                  OR substr(iif(json_valid(text), text ->> 'action', ''), 1, length(?4) + 1) = ?4 || '.')
             ORDER BY seq ",
            $order,
            " LIMIT ?5) ORDER BY seq"
        )
    };
}

impl Store {
    /// Adds a line to the audit log.
    pub(crate) async fn witness(&self, deed: &Deed) -> anyhow::Result<()> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        self.add(&mut transaction, [deed]).await?;
        Ok(transaction.commit().await?)
    }

    /// Adds lines in a transaction that writes already, or has the right to.
    pub(super) async fn add<'a>(
        &self,
        connection: &mut SqliteConnection,
        deeds: impl IntoIterator<Item = &'a Deed>,
    ) -> anyhow::Result<()> {
        let mut deeds = deeds.into_iter().peekable();
        if deeds.peek().is_none() {
            return Ok(());
        }
        let mut head = self.head_within(connection).await?;
        for deed in deeds {
            let (line, next) = head.follow(unix_millis(), deed);
            sqlx::query("INSERT INTO audit VALUES (?, ?, ?)")
                .bind(i64::try_from(next.seq)?)
                .bind(line.text)
                .bind(line.sha256.0.to_vec())
                .execute(&mut *connection)
                .await?;
            head = next;
        }
        Ok(())
    }

    /// The end of the log.
    pub(crate) async fn audit_head(&self) -> anyhow::Result<Head> {
        self.head_within(&mut *self.pool.acquire().await?).await
    }

    /// The last of the lines that are gone, where some are.
    pub(crate) async fn audit_base(&self) -> anyhow::Result<Option<Head>> {
        let base = sqlx::query("SELECT seq, sha256 FROM audit_base").fetch_optional(&self.pool).await?;
        base.map(|row| Ok(Head { seq: u64::try_from(row.try_get::<i64, _>("seq")?)?, sha256: digest(&row) }))
            .transpose()
    }

    async fn head_within(&self, connection: &mut SqliteConnection) -> anyhow::Result<Head> {
        let last = sqlx::query("SELECT seq, sha256 FROM audit ORDER BY seq DESC LIMIT 1");
        match last.fetch_optional(connection).await? {
            None => Ok(Head::empty(&self.fleet)),
            Some(row) => Ok(Head { seq: u64::try_from(row.try_get::<i64, _>("seq")?)?, sha256: digest(&row) }),
        }
    }

    /// Lines of the log, the oldest first.
    pub(crate) async fn audit(&self, which: &Which) -> anyhow::Result<Vec<Line>> {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let rows = sqlx::query(if which.after.is_some() { lines!("ASC") } else { lines!("DESC") })
            .bind(number(which.after.unwrap_or(0)))
            .bind(which.since.map(number))
            .bind(which.who.as_deref())
            .bind(which.action.as_deref())
            .bind(which.limit.clamp(1, MAX_LINES))
            .fetch_all(&self.pool)
            .await?;
        let line = |row: &SqliteRow| Ok(Line { text: row.try_get("text")?, sha256: digest(row) });
        rows.iter().map(line).collect()
    }
}

/// A digest that was damaged is some other digest: the line is then named by whoever verifies.
fn digest(row: &SqliteRow) -> Digest {
    let bytes: Vec<u8> = row.try_get("sha256").unwrap_or_default();
    bytes.try_into().map_or(Digest([0; 32]), Digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bridge_core::audit::{Damage, Verifier};

    async fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "plant-3").await.unwrap();
        (dir, store)
    }

    fn deed(n: u64) -> Deed {
        Deed::new(["admin", "edge-1"][(n % 2) as usize], "device.approve", &format!("edge-{n}"), "done")
    }

    async fn write(store: &Store, lines: u64) {
        for n in 0..lines {
            store.witness(&deed(n)).await.unwrap();
        }
    }

    async fn verified(store: &Store) -> Result<Head, Damage> {
        let mut verifier = Verifier::new("plant-3", []);
        let mut after = 0;
        loop {
            let lines = store.audit(&Which { after: Some(after), limit: 7, ..Which::default() }).await.unwrap();
            if lines.is_empty() {
                return verifier.end();
            }
            for line in &lines {
                after = verifier.take(line)?.seq;
            }
        }
    }

    #[tokio::test]
    async fn lines_of_many_hands_follow_each_other() {
        let (_dir, store) = store().await;
        let hands = (0..4_u64).map(|hand| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..8 {
                    store.witness(&deed(hand * 8 + n)).await.unwrap();
                }
            })
        });
        for hand in hands.collect::<Vec<_>>() {
            hand.await.unwrap();
        }
        assert_eq!(verified(&store).await.unwrap().seq, 32);
        assert_eq!(verified(&store).await, Ok(store.audit_head().await.unwrap()));
    }

    /// T80 on the file itself: whoever changes the database is found, line by line.
    #[tokio::test]
    async fn whoever_edits_the_database_is_found() {
        for (sql, found) in [
            ("UPDATE audit SET text = replace(text, 'edge-4', 'edge-5') WHERE seq = 5", Damage::Edited { line: 5 }),
            ("UPDATE audit SET sha256 = zeroblob(32) WHERE seq = 5", Damage::Edited { line: 5 }),
            ("UPDATE audit SET text = 'nothing' WHERE seq = 5", Damage::Edited { line: 5 }),
            ("DELETE FROM audit WHERE seq = 5", Damage::Displaced { line: 5, found: 6 }),
            (
                "UPDATE audit SET seq = -5 WHERE seq = 5; UPDATE audit SET seq = 5 WHERE seq = 8; UPDATE audit SET seq = 8 WHERE seq = -5",
                Damage::Displaced { line: 5, found: 8 },
            ),
            (
                "INSERT INTO audit SELECT 99, text, sha256 FROM audit WHERE seq = 3",
                Damage::Displaced { line: 13, found: 3 },
            ),
        ] {
            let (_dir, store) = store().await;
            write(&store, 12).await;
            verified(&store).await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&store.pool).await.unwrap();
            assert_eq!(verified(&store).await, Err(found), "{sql}");
        }
    }

    #[tokio::test]
    async fn lines_are_found_by_time_name_and_action() {
        let (_dir, store) = store().await;
        write(&store, 6).await;
        store.witness(&Deed::new("admin", "rollout.start", "digits@1.0.0", "done")).await.unwrap();
        let found = async |which: Which| {
            let lines = store.audit(&which).await.unwrap();
            lines.iter().map(|line| line.entry().unwrap().seq).collect::<Vec<_>>()
        };
        let all = Which { limit: 100, ..Which::default() };
        assert_eq!(found(all.clone()).await, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(found(Which { limit: 2, ..all.clone() }).await, [6, 7], "the last ones");
        assert_eq!(found(Which { after: Some(2), limit: 2, ..all.clone() }).await, [3, 4]);
        assert_eq!(found(Which { who: Some("edge-1".into()), ..all.clone() }).await, [2, 4, 6]);
        assert_eq!(found(Which { action: Some("rollout".into()), ..all.clone() }).await, [7]);
        assert_eq!(
            found(Which { action: Some("device.approve".into()), who: Some("admin".into()), ..all.clone() }).await,
            [1, 3, 5]
        );
        assert_eq!(found(Which { action: Some("roll".into()), ..all.clone() }).await, [] as [u64; 0]);
        assert_eq!(found(Which { since: Some(unix_millis() + 60_000), ..all }).await, [] as [u64; 0]);
    }
}
